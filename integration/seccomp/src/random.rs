//! Choices: numbers that look random and are the same for the same seed, or the bytes of a fuzzer.

/// Where choices come from.
pub enum Random<'a> {
    /// xorshift64*
    Seed(u64),
    /// Of a fuzzer; zeros when all are used.
    Bytes(&'a [u8]),
}

impl Random<'_> {
    /// Any seed.
    pub fn new(seed: u64) -> Self {
        Self::Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state ^= *state >> 12;
                *state ^= *state << 25;
                *state ^= *state >> 27;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d)
            }
            Self::Bytes(_) => (0..8).fold(0, |bits, _| bits << 8 | u64::from(self.byte())),
        }
    }

    fn byte(&mut self) -> u8 {
        let Self::Bytes(bytes) = self else { return (self.bits() >> 56) as u8 };
        let Some((first, rest)) = bytes.split_first() else { return 0 };
        *bytes = rest;
        *first
    }

    /// Less than `end`, which is at most 65536.
    pub fn below(&mut self, end: usize) -> usize {
        let wide = if end > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (wide | usize::from(self.byte())) % end.max(1)
    }

    /// One in so many.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of them.
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}
