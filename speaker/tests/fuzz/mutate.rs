//! Changes to inputs, all drawn from a seed.

/// Numbers that look random and are the same for the same seed (SplitMix64, Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed);
        // Seeds that follow each other shall not begin alike.
        random.0 = random.next() ^ seed.rotate_left(32);
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number near a limit, where there are any.
    pub fn edge(&mut self) -> u64 {
        let edges =
            [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x7fff_ffff, u32::MAX.into(), u64::MAX];
        match self.below(3) {
            0 => *self.pick(&edges),
            1 => self.next() % 300,
            _ => self.next(),
        }
    }

    pub fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest + 1)).map(|_| self.next() as u8).collect()
    }
}

/// Changes an input a little, in up to four places. `corpus` is what other parts are taken from.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    for _ in 0..=random.below(4) {
        change(random, input, corpus);
    }
}

fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len());
    match random.below(9) {
        0 | 1 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        2 if !input.is_empty() => input[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        3 if !input.is_empty() => {
            // A field of two, four or eight bytes.
            let width = *random.pick(&[2_usize, 4, 8]);
            let value = random.edge().to_be_bytes();
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&value[8 - (end - at)..]);
        }
        4 => input.truncate(at),
        5 => {
            let more = random.bytes(40);
            input.extend(more);
        }
        6 if !input.is_empty() => {
            let end = (at + 1 + random.below(16)).min(input.len());
            let part: Vec<u8> = if random.once_in(2) { input[at..end].to_vec() } else { Vec::new() };
            input.splice(at..end, [part.clone(), part].concat());
        }
        _ => {
            let other = random.pick(corpus);
            let from = random.below(other.len());
            input.truncate(at);
            input.extend(&other[from..]);
        }
    }
}
