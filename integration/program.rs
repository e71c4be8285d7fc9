//! Static programs for x86 that make one system call and exit with its errno, or with 0: written as machine code, so that
//! no compiler is needed, for 32-bit code least of all.

mod elf;

use elf::elf;

/// `__X32_SYSCALL_BIT`
pub(crate) const X32: u32 = 0x4000_0000;

/// A 64-bit program; `number` has the x32 bit for a call of x32.
pub(crate) fn x86_64(number: u32, args: &[u64]) -> Vec<u8> {
    let registers: [&[u8]; 3] = [&[0x48, 0xbf], &[0x48, 0xbe], &[0x48, 0xba]];
    let mut code = Vec::new();
    for (register, arg) in registers.iter().zip(args) {
        code.extend([register, &arg.to_le_bytes()[..]].concat()); // mov rdi, rsi, rdx
    }
    code.push(0xb8); // mov eax, number
    code.extend(number.to_le_bytes());
    code.extend([
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0x48, 0x85, 0xc0, // test rax, rax
        0x79, 0x04, // jns +4
        0x89, 0xc7, // mov edi, eax
        0xf7, 0xdf, // neg edi
        0xb8, 0xe7, 0, 0, 0, // mov eax, exit_group
        0x0f, 0x05, // syscall
    ]);
    elf64(&code)
}

/// A program whose second thread makes the call; the first waits for that thread's end and exits with 7.
pub(crate) fn threads(number: u8) -> Vec<u8> {
    elf64(&[
        // mov edi, CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM|PARENT_SETTID|CHILD_CLEARTID
        0xbf, 0x00, 0x0f, 0x35, 0x00, //
        0x31, 0xf6, // xor esi, esi: the stack of the first, which neither uses
        0xba, 0x00, 0x08, 0x40, 0x00, // mov edx, TID
        0x41, 0xba, 0x00, 0x08, 0x40, 0x00, // mov r10d, TID
        0xb8, 0x38, 0, 0, 0, // mov eax, clone
        0x0f, 0x05, // syscall
        0x85, 0xc0, // test eax, eax
        0x75, 0x10, // jnz +16
        0xb8, number, 0, 0, 0, // mov eax, number
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0xb8, 0x3c, 0, 0, 0, // mov eax, exit
        0x0f, 0x05, // syscall
        0x8b, 0x14, 0x25, 0x00, 0x08, 0x40, 0x00, // mov edx, [TID]
        0x85, 0xd2, // test edx, edx
        0x74, 0x13, // jz +19
        0xbf, 0x00, 0x08, 0x40, 0x00, // mov edi, TID
        0x31, 0xf6, // xor esi, esi: FUTEX_WAIT
        0x4d, 0x31, 0xd2, // xor r10, r10: no timeout
        0xb8, 0xca, 0, 0, 0, // mov eax, futex
        0x0f, 0x05, // syscall
        0xeb, 0xe2, // jmp -30
        0xbf, 0x07, 0, 0, 0, // mov edi, 7
        0xb8, 0xe7, 0, 0, 0, // mov eax, exit_group
        0x0f, 0x05, // syscall
    ])
}

/// A program whose first thread ends, and whose second lives on: the process is a zombie to look at, and none to wait for.
pub(crate) fn headless() -> Vec<u8> {
    elf64(&[
        // mov edi, CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM
        0xbf, 0x00, 0x0f, 0x05, 0x00, //
        0x31, 0xf6, // xor esi, esi: the stack of the first, which neither uses
        0xb8, 0x38, 0, 0, 0, // mov eax, clone
        0x0f, 0x05, // syscall
        0x85, 0xc0, // test eax, eax
        0x75, 0x09, // jnz +9
        0xb8, 0x22, 0, 0, 0, // mov eax, pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp -9
        0x31, 0xff, // xor edi, edi
        0xb8, 0x3c, 0, 0, 0, // mov eax, exit
        0x0f, 0x05, // syscall
    ])
}

/// A 32-bit program, which calls by int 0x80.
pub(crate) fn i386(number: u32, args: &[u32]) -> Vec<u8> {
    let mut code = Vec::new();
    for (register, arg) in [0xbb, 0xb9, 0xba].iter().zip(args) {
        code.push(*register); // mov ebx, ecx, edx
        code.extend(arg.to_le_bytes());
    }
    code.push(0xb8); // mov eax, number
    code.extend(number.to_le_bytes());
    code.extend([
        0xcd, 0x80, // int 0x80
        0x31, 0xdb, // xor ebx, ebx
        0x85, 0xc0, // test eax, eax
        0x79, 0x04, // jns +4
        0x89, 0xc3, // mov ebx, eax
        0xf7, 0xdb, // neg ebx
        0xb8, 0xfc, 0, 0, 0, // mov eax, exit_group
        0xcd, 0x80, // int 0x80
    ]);
    elf(1, 3, &code)
}

fn elf64(code: &[u8]) -> Vec<u8> {
    elf(2, 62, code)
}
