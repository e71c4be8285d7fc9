//! The machines, and libseccomp's names for their ABIs.

use crate::cbpf::Data;
use crate::seccomp::ARCHITECTURES;
use crate::seccomp::table::{Abi as Table, Machine};
use oci_spec::runtime::{Arch, LinuxSeccomp};

/// `AUDIT_ARCH_X86_64`
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// `__X32_SYSCALL_BIT`
pub const X32_BIT: u32 = 0x4000_0000;

/// A machine that a filter can be for.
pub struct Target {
    /// As uname(1) has it.
    pub name: &'static str,
    pub(crate) machine: Machine,
    /// The order of the bytes, and so of the words of an argument.
    pub is_big_endian: bool,
    abis: Vec<Abi>,
}

/// One ABI of a machine.
#[derive(Clone)]
pub struct Abi {
    /// As in a profile.
    pub name: String,
    /// `SCMP_ARCH_*`
    pub token: u32,
    /// As in `seccomp_data.arch`.
    pub audit_arch: u32,
    arch: Arch,
    pub(crate) table: Table,
}

impl Abi {
    /// Whether it is told apart by a bit of the number alone.
    pub fn is_x32(&self) -> bool {
        self.table == Table::X32
    }

    /// Whether arguments are compared in full.
    pub fn is_wide(&self) -> bool {
        self.table.wide()
    }

    /// Ours.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.table.number(name)
    }

    /// The call that carries `name`, its code there, and which bits are looked at.
    pub fn multiplexed(&self, name: &str) -> Option<(u32, u64, u64)> {
        self.table.multiplexed(name)
    }
}

impl Target {
    /// `AUDIT_ARCH_*` and token of its own ABI.
    pub fn own(&self) -> u32 {
        self.abis[0].token
    }

    /// All its ABIs.
    pub fn every_abi(&self) -> &[Abi] {
        &self.abis
    }

    /// The ABIs that the profile lists and the machine has.
    pub fn listed(&self, profile: &LinuxSeccomp) -> Vec<&Abi> {
        let listed = profile.architectures().iter().flatten();
        listed.filter_map(|arch| self.abis.iter().find(|abi| abi.arch == *arch)).collect()
    }

    /// The machine's own ABI and those listed, each once.
    pub fn abis(&self, profile: &LinuxSeccomp) -> Vec<&Abi> {
        let listed = profile.architectures().iter().flatten().copied().collect::<Vec<_>>();
        let is_meant = |(i, abi): &(usize, &Abi)| *i == 0 || listed.contains(&abi.arch);
        self.abis.iter().enumerate().filter(is_meant).map(|(_, abi)| abi).collect()
    }

    /// What the kernel of this machine shows a filter.
    pub fn data(&self, arch: u32, number: u32, args: &[u64; 6]) -> Data {
        let mut data = [0; 16];
        data[0] = number;
        data[1] = arch;
        for (words, arg) in data[4..].chunks_exact_mut(2).zip(args) {
            let (high, low) = ((arg >> 32) as u32, *arg as u32);
            words.copy_from_slice(&if self.is_big_endian { [high, low] } else { [low, high] });
        }
        data
    }
}

/// All machines that both know.
pub fn all() -> Vec<Target> {
    // libseccomp 2.5 knows no LoongArch.
    Machine::ALL
        .iter()
        .filter(|(name, _)| *name != "loongarch64")
        .map(|(name, machine)| target(name, *machine))
        .collect()
}

fn target(name: &'static str, machine: Machine) -> Target {
    let abi = |table: &Table| {
        let (arch, _) = ARCHITECTURES.iter().find(|(_, known)| *known == Some(*table)).expect("an architecture");
        // SCMP_ARCH_X32 lacks the bit that says "64-bit"; all others are AUDIT_ARCH_*.
        let token = if *table == Table::X32 { 0x4000_003e } else { table.audit_arch() };
        Abi { name: arch.to_string(), token, audit_arch: table.audit_arch(), arch: *arch, table: *table }
    };
    Target { name, machine, is_big_endian: machine.is_big_endian(), abis: machine.abis().iter().map(abi).collect() }
}

/// Every name of the tables that ours are made of.
pub fn names(abi: &Abi) -> Vec<String> {
    macro_rules! all {
        ($arch:ident) => {
            (0..=syscalls::$arch::Sysno::last().id())
                .filter_map(|id| syscalls::$arch::Sysno::new(id as usize))
                .map(|call| call.name().trim_start_matches("r#").to_owned())
                .collect()
        };
    }
    match abi.table {
        Table::X86_64 | Table::X32 => all!(x86_64),
        Table::X86 => all!(x86),
        Table::Aarch64 => all!(aarch64),
        Table::Arm => all!(arm),
        Table::Riscv64 => all!(riscv64),
        Table::Loongarch64 => all!(loongarch64),
        Table::S390x => all!(s390x),
        Table::Ppc64 | Table::Ppc64le => all!(powerpc64),
        Table::Ppc => all!(powerpc),
        Table::Mips64 | Table::Mipsel64 => all!(mips64),
        Table::Mips | Table::Mipsel => all!(mips),
    }
}
