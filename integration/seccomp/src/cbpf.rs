//! A classic BPF machine for seccomp programs: decoded once, then fast.

/// `struct seccomp_data` in 32-bit words, in the byte order of the target.
pub type Data = [u32; 16];

#[derive(Clone, Copy)]
enum Op {
    Load(u8),
    And(u32),
    Jump(u32),
    Equal(u32, u8, u8),
    Greater(u32, u8, u8),
    GreaterOrEqual(u32, u8, u8),
    Set(u32, u8, u8),
    Return(u32),
}

/// Of the words that were read: those of arguments.
pub const ARGUMENTS: u16 = !0xf;
/// The number.
pub const NUMBER: u16 = 1;

/// A program of at most 4096 instructions.
pub struct Program(Vec<Op>);

impl Program {
    /// From code, jt, jf and k of each instruction.
    pub fn new(instructions: impl Iterator<Item = (u16, u8, u8, u32)>) -> Self {
        let decode = |(code, jt, jf, k): (u16, u8, u8, u32)| match code {
            0x20 => {
                assert!(k < 64 && k.is_multiple_of(4), "load of {k}");
                Op::Load((k / 4) as u8)
            }
            0x54 => Op::And(k),
            0x05 => Op::Jump(k),
            0x15 => Op::Equal(k, jt, jf),
            0x25 => Op::Greater(k, jt, jf),
            0x35 => Op::GreaterOrEqual(k, jt, jf),
            0x45 => Op::Set(k, jt, jf),
            0x06 => Op::Return(k),
            _ => panic!("instruction {code:#x}"),
        };
        Self(instructions.map(decode).collect())
    }

    /// How many instructions.
    #[allow(clippy::len_without_is_empty, reason = "no program is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What the kernel would do, and which words were read on the way, a bit for each.
    pub fn run(&self, data: &Data) -> (u32, u16) {
        let (mut at, mut a, mut read) = (0usize, 0u32, 0u16);
        loop {
            let op = self.0[at];
            at += 1;
            let skip = match op {
                Op::Load(word) => {
                    read |= 1 << word;
                    a = data[usize::from(word)];
                    0
                }
                Op::And(k) => {
                    a &= k;
                    0
                }
                Op::Jump(k) => k as usize,
                Op::Equal(k, jt, jf) => usize::from(if a == k { jt } else { jf }),
                Op::Greater(k, jt, jf) => usize::from(if a > k { jt } else { jf }),
                Op::GreaterOrEqual(k, jt, jf) => usize::from(if a >= k { jt } else { jf }),
                Op::Set(k, jt, jf) => usize::from(if a & k != 0 { jt } else { jf }),
                Op::Return(k) => return (k, read),
            };
            at += skip;
        }
    }
}
