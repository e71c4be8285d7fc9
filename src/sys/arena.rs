//! The allocator: a piece of zeroed memory of the program itself, used up from its beginning, then the C library's.
//!
//! A command lives for milliseconds: to give memory back costs more than to have it for so long, and musl's allocator asks
//! the kernel for a mapping for almost every size (64 system calls in `--version`). What lives longer, `run` and `events`,
//! gets from the C library what it allocates later on, and frees it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `create` with Docker's seccomp profile needs, twice. A page that is not touched costs nothing.
const SIZE: usize = 1 << 20;

struct Arena {
    memory: UnsafeCell<[u8; SIZE]>,
    /// Up to here it is used.
    used: AtomicUsize,
}

// SAFETY: a place in the memory is given to one caller only, by an atomic change of `used`.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena::new();

impl Arena {
    const fn new() -> Self {
        Self { memory: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// Where in the memory something is; None: it is the C library's.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        (pointer as usize).checked_sub(self.base() as usize).filter(|offset| *offset < SIZE)
    }

    /// Takes the memory from `from` on, which nobody has, up to `to`. False: that is no longer, or not, the end of what is used.
    fn moves_end(&self, from: usize, to: usize) -> bool {
        to <= SIZE && self.used.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: `alloc` gives out each byte of the memory to one caller at a time, aligned as asked for, or what the C library
// gives. The end moves back only over the last piece, whose owner asks for it. A pointer tells by itself whose it is.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = self.used.load(Ordering::Acquire);
        loop {
            let begin = (self.base() as usize + used).next_multiple_of(layout.align()) - self.base() as usize;
            match begin.checked_add(layout.size()).filter(|end| *end <= SIZE) {
                // SAFETY: the caller's layout is passed on.
                None => return unsafe { System.alloc(layout) },
                // SAFETY: `begin` is inside of the memory.
                Some(end) if self.moves_end(used, end) => return unsafe { self.base().add(begin) },
                Some(_) => used = self.used.load(Ordering::Acquire),
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            // Only the last piece can be used again.
            Some(begin) => drop(self.moves_end(begin + layout.size(), begin)),
            // SAFETY: it is the C library's, from `alloc` or `realloc`, of this layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(begin) = self.offset(pointer) else {
            // SAFETY: as in `dealloc`; the caller promises the rest.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        if size <= layout.size() || self.moves_end(begin + layout.size(), begin + size) {
            return pointer;
        }
        // SAFETY: the caller promises that size and alignment make a layout; the two pieces do not overlap, since the old one is
        // still in use, and the new one is the longer.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(pointer, new, layout.size());
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_and_apart() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        let mut end = 0;
        for align in [1, 8, 64, 4096, 2] {
            let layout = Layout::from_size_align(5, align).unwrap();
            // SAFETY: the size is not 0.
            let piece = unsafe { arena.alloc(layout) };
            assert_eq!(piece as usize % align, 0);
            let offset = arena.offset(piece).unwrap();
            assert!(offset >= end);
            end = offset + 5;
        }
    }

    #[test]
    fn the_last_piece_grows_in_place_and_is_used_again() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        let layout = Layout::from_size_align(16, 8).unwrap();
        let longer = Layout::from_size_align(32, 8).unwrap();
        // SAFETY: the sizes are not 0, and the pieces are those of `alloc`.
        unsafe {
            let first = arena.alloc(layout);
            assert_eq!(arena.realloc(first, layout, 32), first);
            let second = arena.alloc(layout);
            second.write(7);
            let moved = arena.realloc(first, longer, 64);
            assert!(moved > second && second.read() == 7);
            arena.dealloc(moved, Layout::from_size_align(64, 8).unwrap());
            assert_eq!(arena.alloc(layout), moved);
        }
    }

    #[test]
    fn what_does_not_fit_is_the_c_librarys() {
        static ARENA: Arena = Arena::new();
        let arena = &ARENA;
        let layout = Layout::from_size_align(SIZE - 8, 8).unwrap();
        let small = Layout::from_size_align(16, 8).unwrap();
        // SAFETY: the sizes are not 0, and the pieces are those of `alloc`, with their layouts.
        unsafe {
            let big = arena.alloc(layout);
            assert_eq!(arena.offset(big), Some(0));
            let other = arena.alloc(small);
            assert_eq!(arena.offset(other), None);
            let other = arena.realloc(other, small, 4096);
            assert_eq!(arena.offset(other), None);
            arena.dealloc(other, Layout::from_size_align(4096, 8).unwrap());
        }
    }
}
