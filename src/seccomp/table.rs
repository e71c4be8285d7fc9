//! Numbers of system calls by name, for each ABI that a filter can meet on one machine.
//!
//! Runs in: nowhere in particular, it is pure. The tables are those of the `syscalls` crate, turned at compile time into
//! one string of names and a hash index over it: `Sysno::from_str` compares a name with up to 460 others, and a
//! profile asks for some 1100 names. Offsets in place of `&str`s also keep a static-pie binary, which starts for every
//! command, free of 1300 relocations.

/// The architecture of the machine, which decides the ABIs that its kernel can report to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// x86_64, which also runs i386 and x32 programs.
    X86_64,
    /// 64-bit ARM, which also runs 32-bit ARM programs.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit LoongArch.
    Loongarch64,
    /// 64-bit z. Of its 31-bit ABI (s390) the crate has no table.
    S390x,
    /// 64-bit PowerPC, big-endian, which also runs 32-bit programs.
    Ppc64,
    /// 64-bit PowerPC, little-endian.
    Ppc64le,
    /// 64-bit MIPS, big-endian, which also runs o32 programs. Of n32 the crate has no table.
    Mips64,
    /// 64-bit MIPS, little-endian.
    Mips64el,
}

/// The machine that this binary is for; `None` where no table exists.
pub(super) const HOST: Option<Machine> = if cfg!(target_arch = "x86_64") {
    Some(Machine::X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(Machine::Aarch64)
} else if cfg!(target_arch = "riscv64") {
    Some(Machine::Riscv64)
} else if cfg!(target_arch = "loongarch64") {
    Some(Machine::Loongarch64)
} else if cfg!(target_arch = "s390x") {
    Some(Machine::S390x)
} else if cfg!(all(target_arch = "powerpc64", target_endian = "big")) {
    Some(Machine::Ppc64)
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    Some(Machine::Ppc64le)
} else if cfg!(all(target_arch = "mips64", target_endian = "big")) {
    Some(Machine::Mips64)
} else if cfg!(all(target_arch = "mips64", target_endian = "little")) {
    Some(Machine::Mips64el)
} else {
    None
};

/// One system call ABI: a set of numbers and a width of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86 (i386).
    X86,
    /// x86_64 with 32-bit pointers. It reports the architecture of x86_64 and sets [`X32_BIT`] in the number.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit LoongArch.
    Loongarch64,
    /// 64-bit z.
    S390x,
    /// 64-bit PowerPC, big-endian.
    Ppc64,
    /// 64-bit PowerPC, little-endian.
    Ppc64le,
    /// 32-bit PowerPC, big-endian.
    Ppc,
    /// MIPS n64, big-endian.
    Mips64,
    /// MIPS o32, big-endian.
    Mips,
    /// MIPS n64, little-endian.
    Mipsel64,
    /// MIPS o32, little-endian.
    Mipsel,
}

/// `__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// x32's own numbers start here and are consecutive; the list is complete, because the kernel takes no more
/// (arch/x86/entry/syscalls/syscall_64.tbl). Every other call has the number that it has on x86_64.
const X32_FIRST_OWN: u32 = 512;
#[rustfmt::skip]
const X32_OWN: [&str; 36] = [
    "rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
    "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load",
    "waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev",
    "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt",
    "io_setup", "io_submit", "execveat", "preadv2", "pwritev2",
];
/// The calls of x86_64 that syscall_64.tbl marks `64`, so that x32 has none of that name.
#[rustfmt::skip]
const X32_NONE: [&str; 12] = [
    "uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "set_thread_area",
    "get_thread_area", "epoll_ctl_old", "epoll_wait_old", "vserver", "map_shadow_stack",
];

/// The calls that several ABIs can also make through socketcall(2), in the order of their numbers there, from 1 (linux/net.h).
#[rustfmt::skip]
const SOCKETCALL: [&str; 20] = [
    "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
    "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg",
    "sendmmsg",
];
/// The calls that the same ABIs can also make through ipc(2), with their numbers there (linux/ipc.h).
#[rustfmt::skip]
const IPC: [(&str, u64); 12] = [
    ("semop", 1), ("semget", 2), ("semctl", 3), ("semtimedop", 4), ("msgsnd", 11), ("msgrcv", 12), ("msgget", 13),
    ("msgctl", 14), ("shmat", 21), ("shmdt", 22), ("shmget", 23), ("shmctl", 24),
];

/// 32-bit ARM's private calls lie above this number (`__ARM_NR_BASE`) and are missing in the crate.
const ARM_PRIVATE: u32 = 0xf_0000;
const ARM_PRIVATE_NAMES: [&str; 6] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"];

/// Calls with 64-bit times for 32-bit ABIs. A 64-bit kernel has nothing at these numbers, though the crate, reading
/// asm-generic/unistd.h without its conditions, says otherwise.
const TIME64: std::ops::RangeInclusive<u32> = 403..=423;

impl Machine {
    /// All of them, as uname(1) has them, for comparisons.
    #[cfg(every_machine)]
    pub(crate) const ALL: [(&str, Self); 9] = [
        ("x86_64", Self::X86_64),
        ("aarch64", Self::Aarch64),
        ("riscv64", Self::Riscv64),
        ("loongarch64", Self::Loongarch64),
        ("s390x", Self::S390x),
        ("ppc64", Self::Ppc64),
        ("ppc64le", Self::Ppc64le),
        ("mips64", Self::Mips64),
        ("mips64el", Self::Mips64el),
    ];

    /// Every ABI of the machine, its own first.
    pub(crate) const fn abis(self) -> &'static [Abi] {
        match self {
            Self::X86_64 => &[Abi::X86_64, Abi::X86, Abi::X32],
            Self::Aarch64 => &[Abi::Aarch64, Abi::Arm],
            Self::Riscv64 => &[Abi::Riscv64],
            Self::Loongarch64 => &[Abi::Loongarch64],
            Self::S390x => &[Abi::S390x],
            Self::Ppc64 => &[Abi::Ppc64, Abi::Ppc],
            Self::Ppc64le => &[Abi::Ppc64le],
            Self::Mips64 => &[Abi::Mips64, Abi::Mips],
            Self::Mips64el => &[Abi::Mipsel64, Abi::Mipsel],
        }
    }

    /// Whether the high word of an argument comes first.
    pub(crate) const fn is_big_endian(self) -> bool {
        matches!(self, Self::S390x | Self::Ppc64 | Self::Mips64)
    }
}

impl Abi {
    /// `AUDIT_ARCH_*` (linux/audit.h), as the kernel puts it into `seccomp_data.arch`.
    pub(crate) const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::Loongarch64 => 0xc000_0102,
            Self::S390x => 0x8000_0016,
            Self::Ppc64 => 0x8000_0015,
            Self::Ppc64le => 0xc000_0015,
            Self::Ppc => 0x0000_0014,
            Self::Mips64 => 0x8000_0008,
            Self::Mips => 0x0000_0008,
            Self::Mipsel64 => 0xc000_0008,
            Self::Mipsel => 0x4000_0008,
        }
    }

    /// Whether arguments are compared in full. libseccomp compares the low word only on the others, so that a rule's
    /// -1 means what the program passes.
    pub(crate) const fn wide(self) -> bool {
        !matches!(self, Self::X86 | Self::X32 | Self::Arm | Self::Ppc | Self::Mips | Self::Mipsel)
    }

    /// The number of a call, with [`X32_BIT`] on x32.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => x86_64::NAMES.number(name),
            Self::X86 => x86::NAMES.number(name),
            Self::X32 => x32(name).map(|number| number | X32_BIT),
            Self::Aarch64 => generic(&aarch64::NAMES, name),
            Self::Arm => arm(name),
            Self::Riscv64 => riscv64::NAMES.number(name),
            Self::Loongarch64 => generic(&loongarch64::NAMES, name),
            Self::S390x => s390x::NAMES.number(name),
            Self::Ppc64 | Self::Ppc64le => powerpc64::NAMES.number(name),
            Self::Ppc => powerpc::NAMES.number(name),
            // Missing in the crate.
            Self::Mips64 | Self::Mipsel64 if name == "set_mempolicy_home_node" => Some(5450),
            Self::Mips64 | Self::Mipsel64 => mips64::NAMES.number(name),
            Self::Mips | Self::Mipsel => mips::NAMES.number(name),
        }
    }

    /// The call that carries others, the value of its first argument that means `name`, and the bits of the argument
    /// that the kernel looks at: an int, of which ipc(2) has a version in the upper half.
    pub(crate) fn multiplexed(self, name: &str) -> Option<(u32, u64, u64)> {
        let multiplexes = matches!(
            self,
            Self::X86 | Self::S390x | Self::Ppc64 | Self::Ppc64le | Self::Ppc | Self::Mips | Self::Mipsel
        );
        if !multiplexes {
            return None;
        }
        if let Some(index) = SOCKETCALL.iter().position(|call| *call == name) {
            return Some((self.number("socketcall")?, u64::try_from(index).ok()?.saturating_add(1), 0xffff_ffff));
        }
        let (_, code) = IPC.iter().find(|(call, _)| *call == name)?;
        Some((self.number("ipc")?, *code, 0xffff))
    }

    /// The name of a number.
    pub(super) fn name(self, number: u32) -> Option<&'static str> {
        match self {
            Self::X32 if number & !X32_BIT >= X32_FIRST_OWN => {
                X32_OWN.get(usize::try_from((number & !X32_BIT) - X32_FIRST_OWN).ok()?).copied()
            }
            Self::X86_64 | Self::X32 => x86_64::NAMES.name(number & !X32_BIT),
            Self::X86 => x86::NAMES.name(number),
            Self::Aarch64 => aarch64::NAMES.name(number),
            Self::Arm => arm::NAMES.name(number),
            Self::Riscv64 => riscv64::NAMES.name(number),
            Self::Loongarch64 => loongarch64::NAMES.name(number),
            Self::S390x => s390x::NAMES.name(number),
            Self::Ppc64 | Self::Ppc64le => powerpc64::NAMES.name(number),
            Self::Ppc => powerpc::NAMES.name(number),
            Self::Mips64 | Self::Mipsel64 => mips64::NAMES.name(number),
            Self::Mips | Self::Mipsel => mips::NAMES.name(number),
        }
        .map(|name| if name == "fstatat" { "newfstatat" } else { name })
        .filter(|name| self.number(name) == Some(number))
    }

    /// Whether the number stands outside the sequence in which the kernel adds new calls.
    pub(super) const fn private(self, number: u32) -> bool {
        matches!(self, Self::Arm) && number > ARM_PRIVATE
    }
}

fn x32(name: &str) -> Option<u32> {
    if let Some(index) = X32_OWN.iter().position(|own| *own == name) {
        return u32::try_from(index).ok().map(|index| X32_FIRST_OWN.saturating_add(index));
    }
    if X32_NONE.contains(&name) { None } else { x86_64::NAMES.number(name) }
}

fn arm(name: &str) -> Option<u32> {
    let private = ARM_PRIVATE_NAMES.iter().zip(ARM_PRIVATE.saturating_add(1)..).find(|(call, _)| **call == name);
    private.map(|(_, number)| number).or_else(|| arm::NAMES.number(name))
}

/// The crate has newfstatat under its name in a macro of linux/unistd.h; programs and profiles use that of the man page.
fn generic(names: &Names, name: &str) -> Option<u32> {
    let name = match name {
        "newfstatat" => "fstatat",
        "fstatat" => return None,
        name => name,
    };
    names.number(name).filter(|number| !TIME64.contains(number))
}

/// One name: where it stands in the string of all names, and the number of the call.
#[derive(Clone, Copy)]
struct Entry {
    start: u16,
    length: u16,
    number: u32,
}

/// The names of one ABI. A slot of the open-addressing index holds the position of an entry plus one, or 0.
struct Names {
    text: &'static [u8],
    entries: &'static [Entry],
    slots: &'static [u16],
}

/// At least twice the names of any ABI, and a power of two.
const SLOTS: usize = 1024;

impl Names {
    fn number(&self, name: &str) -> Option<u32> {
        let mut slot = hash(name.as_bytes());
        loop {
            let entry = usize::from(*self.slots.get(slot)?).checked_sub(1)?;
            let Entry { start, length, number } = *self.entries.get(entry)?;
            let start = usize::from(start);
            if self.text.get(start..start.checked_add(usize::from(length))?)? == name.as_bytes() {
                return Some(number);
            }
            slot = next(slot);
        }
    }
}

impl Names {
    fn name(&self, number: u32) -> Option<&'static str> {
        let Entry { start, length, .. } = self.entries.iter().find(|entry| entry.number == number)?;
        let name = self.text.get(usize::from(*start)..)?.get(..usize::from(*length))?;
        str::from_utf8(name).ok()
    }
}

/// FNV-1a, folded to a slot.
#[allow(clippy::indexing_slicing, reason = "bounded by the loop; const fn has no iterators")]
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 16)) as usize % SLOTS
}

const fn next(slot: usize) -> usize {
    (slot + 1) % SLOTS
}

/// The macro that made the crate's names keeps the `r#` of names which are keywords of Rust (`break`).
#[allow(clippy::indexing_slicing, reason = "bounded by the condition; const fn has no iterators")]
const fn keyword_prefix(name: &[u8]) -> usize {
    if name.len() > 2 && name[0] == b'r' && name[1] == b'#' { 2 } else { 0 }
}

/// Makes a module with `NAMES` from a module of the crate; on other targets than those given, an empty one. All of it is
/// evaluated by the compiler, where an index out of bounds or a value that does not fit is an error of the build.
macro_rules! names {
    ($abi:ident, $($target:tt)*) => {
        #[cfg(not(any(test, every_machine, $($target)*)))]
        mod $abi {
            pub(super) static NAMES: super::Names = super::Names { text: &[], entries: &[], slots: &[] };
        }

        #[cfg(any(test, every_machine, $($target)*))]
        #[allow(
            clippy::indexing_slicing,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "evaluated at compile time"
        )]
        mod $abi {
            use super::{Entry, Names, SLOTS, hash, keyword_prefix, next};
            use syscalls::$abi::Sysno;

            const COUNT: usize = Sysno::count();
            const LENGTH: usize = {
                let mut length = 0;
                let mut id = 0;
                while id <= Sysno::last().id() as usize {
                    if let Some(call) = Sysno::new(id) {
                        length += call.name().len();
                    }
                    id += 1;
                }
                assert!(length <= u16::MAX as usize && COUNT * 2 <= SLOTS);
                length
            };
            static TEXT: [u8; LENGTH] = TABLE.0;
            static ENTRIES: [Entry; COUNT] = TABLE.1;
            static SLOT: [u16; SLOTS] = TABLE.2;
            pub(super) static NAMES: Names = Names { text: &TEXT, entries: &ENTRIES, slots: &SLOT };

            const TABLE: ([u8; LENGTH], [Entry; COUNT], [u16; SLOTS]) = {
                let mut text = [0; LENGTH];
                let mut entries = [Entry { start: 0, length: 0, number: 0 }; COUNT];
                let mut slots = [0; SLOTS];
                let (mut at, mut count, mut id) = (0, 0, 0);
                while id <= Sysno::last().id() as usize {
                    if let Some(call) = Sysno::new(id) {
                        let (_, name) = call.name().as_bytes().split_at(keyword_prefix(call.name().as_bytes()));
                        entries[count] = Entry { start: at as u16, length: name.len() as u16, number: id as u32 };
                        count += 1;
                        let mut i = 0;
                        while i < name.len() {
                            text[at] = name[i];
                            at += 1;
                            i += 1;
                        }
                        let mut slot = hash(name);
                        while slots[slot] != 0 {
                            slot = next(slot);
                        }
                        slots[slot] = count as u16;
                    }
                    id += 1;
                }
                (text, entries, slots)
            };
        }
    };
}

names!(x86_64, target_arch = "x86_64");
names!(x86, target_arch = "x86_64");
names!(aarch64, target_arch = "aarch64");
names!(arm, target_arch = "aarch64");
names!(riscv64, target_arch = "riscv64");
names!(loongarch64, target_arch = "loongarch64");
names!(s390x, target_arch = "s390x");
names!(powerpc64, target_arch = "powerpc64");
names!(powerpc, all(target_arch = "powerpc64", target_endian = "big"));
names!(mips64, target_arch = "mips64");
names!(mips, target_arch = "mips64");

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(last: i32, name: impl Fn(usize) -> Option<&'static str>, abi: Abi) {
        let mut seen = 0;
        for id in 0..=usize::try_from(last).unwrap() {
            let is_real = |_: &&str| !(abi.wide() && (403..=423).contains(&id));
            if let Some(name) = name(id).filter(is_real) {
                let name = name.strip_prefix("r#").unwrap_or(if name == "fstatat" { "newfstatat" } else { name });
                assert_eq!(abi.number(name), Some(u32::try_from(id).unwrap()), "{abi:?} {name}");
                seen += 1;
            }
        }
        assert!(seen > 300);
    }

    #[test]
    fn every_name_of_the_crate_is_found_with_its_number() {
        macro_rules! all {
            ($($arch:ident $abi:ident),*) => {
                $(
                    use syscalls::$arch::Sysno as $abi;
                    numbers($abi::last().id(), |id| $abi::new(id).map(|call| call.name()), Abi::$abi);
                )*
            };
        }
        all!(x86_64 X86_64, x86 X86, aarch64 Aarch64, arm Arm, riscv64 Riscv64, loongarch64 Loongarch64, s390x S390x);
        all!(powerpc64 Ppc64le, powerpc Ppc, mips64 Mips64, mips Mips);
    }

    #[test]
    fn other_names_are_not_found() {
        for name in ["", "open\0", "opena", "nosuchcall", "r#break", "OPEN", "s390_pci_mmio_read"] {
            for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64] {
                assert_eq!(abi.number(name), None, "{abi:?} {name:?}");
            }
        }
        assert_eq!(Abi::X86.number("break"), Some(17));
        assert_eq!(Abi::X86.number("accept"), None);
        assert_eq!(Abi::Aarch64.number("open"), None);
        assert_eq!(Abi::Aarch64.number("newfstatat"), Some(79));
    }

    #[test]
    fn x32_has_its_own_numbers_and_lacks_the_64_bit_only_calls() {
        assert_eq!(Abi::X32.number("read"), Some(X32_BIT));
        assert_eq!(Abi::X32.number("execve"), Some(X32_BIT | 520));
        assert_eq!(Abi::X32.number("pwritev2"), Some(X32_BIT | 547));
        assert_eq!(Abi::X32.number("uselib"), None);
        for name in X32_OWN.iter().chain(&X32_NONE) {
            assert!(Abi::X86_64.number(name).is_some(), "{name}");
        }
    }

    #[test]
    fn some_abis_multiplex_sockets_and_ipc() {
        assert_eq!(Abi::X86.multiplexed("socket"), Some((102, 1, 0xffff_ffff)));
        assert_eq!(Abi::X86.multiplexed("sendmmsg"), Some((102, 20, 0xffff_ffff)));
        assert_eq!(Abi::X86.multiplexed("shmctl"), Some((117, 24, 0xffff)));
        assert_eq!(Abi::X86.multiplexed("read"), None);
        assert_eq!(Abi::X86_64.multiplexed("socket"), None);
        assert_eq!(Abi::S390x.multiplexed("accept"), Some((102, 5, 0xffff_ffff)));
        assert_eq!(Abi::Mips.multiplexed("semop"), Some((4117, 1, 0xffff)));
        assert_eq!(Abi::Mips64.multiplexed("semop"), None);
    }

    #[test]
    fn a_64_bit_abi_has_no_calls_with_64_bit_times() {
        for abi in [Abi::Aarch64, Abi::Riscv64, Abi::Loongarch64, Abi::S390x, Abi::Ppc64le] {
            assert_eq!(abi.number("clock_gettime64"), None, "{abi:?}");
        }
        assert_eq!(Abi::Arm.number("clock_gettime64"), Some(403));
        assert_eq!(Abi::Arm.number("set_tls"), Some(0xf_0005));
    }
}
