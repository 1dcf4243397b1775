//! Cuts a stream into the pieces in which it arrives.

/// The pieces of a stream, in order; none is empty. Which ones is told by a number from the input, so that the fuzzer finds
/// cuts as it finds bytes: 0 for one piece, 1 for single bytes, 2 for lines, and otherwise a sequence of lengths up to that
/// number.
pub(crate) struct Pieces<'a> {
    rest: &'a [u8],
    how: u8,
    state: u32,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(bytes: &'a [u8], how: u8) -> Self {
        Self { rest: bytes, how, state: u32::from(how) }
    }

    fn next_len(&mut self) -> usize {
        match self.how {
            0 => self.rest.len(),
            1 => 1,
            2 => self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |at| at + 1),
            most => {
                // A linear congruence (Numerical Recipes) is random enough to cut with.
                self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                1 + (self.state >> 24) as usize % usize::from(most)
            }
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let len = self.next_len().min(self.rest.len());
        let (piece, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(piece)
    }
}
