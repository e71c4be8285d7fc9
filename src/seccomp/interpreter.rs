//! What the kernel decides with a filter: the program, run on one system call. Pure.

use super::program::{AND, JA, JEQ, JGE, JGT, LD_ABS, RET};

/// `struct seccomp_data` (linux/seccomp.h) without the instruction pointer, which no filter of ours reads.
pub(super) struct Data {
    /// With the x32 bit.
    pub(super) number: u32,
    /// `AUDIT_ARCH_*`
    pub(super) audit_arch: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn bytes(&self) -> Vec<u8> {
        let head = [self.number.to_ne_bytes(), self.audit_arch.to_ne_bytes(), [0; 4], [0; 4]];
        head.into_iter().flatten().chain(self.args.into_iter().flat_map(u64::to_ne_bytes)).collect()
    }
}

/// `SECCOMP_RET_*` with its data; `None` for a program that the kernel would not take.
pub(super) fn run(program: &[seccompiler::sock_filter], data: &Data) -> Option<u32> {
    let data = data.bytes();
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let insn = program.get(at)?;
        let skip = |holds| usize::from(if holds { insn.jt } else { insn.jf });
        let k = usize::try_from(insn.k).ok()?;
        let skipped = match insn.code {
            LD_ABS => {
                accumulator = u32::from_ne_bytes(*data.get(k..)?.first_chunk()?);
                0
            }
            AND => {
                accumulator &= insn.k;
                0
            }
            JA => k,
            JEQ => skip(accumulator == insn.k),
            JGT => skip(accumulator > insn.k),
            JGE => skip(accumulator >= insn.k),
            RET => return Some(insn.k),
            _ => return None,
        };
        at = at.checked_add(1)?.checked_add(skipped)?;
    }
}
