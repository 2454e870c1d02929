//! Cuts a text into `<tags>` and the characters between them: what all token families but JSON share.

use super::tally::Piece;

/// Longest tag of any family, `<|object_ref_start|>`, with room to spare. A `<` that finds no `>` within this many
/// characters was just a character.
const MAX_TAG: usize = 32;

/// One part of the text.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// A character outside tags.
    Char(char),
    /// What stands between `<` and `>`, and the piece each of its characters came in.
    Tag(&'a str, &'a [Piece]),
}

/// Holds a tag until it is complete.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tags {
    held: Option<String>,
    pieces: Vec<Piece>,
}

impl Tags {
    /// Takes a character and calls `part` for each part it completes.
    pub(crate) fn step(&mut self, c: char, piece: Piece, mut part: impl FnMut(Part<'_>)) {
        match (&mut self.held, c) {
            (_, '<') => {
                self.flush(&mut part);
                self.pieces.clear();
                self.pieces.push(piece);
                self.held = Some(String::new());
            }
            (None, c) => part(Part::Char(c)),
            (Some(name), '>') => {
                self.pieces.push(piece);
                part(Part::Tag(name, &self.pieces));
                self.held = None;
            }
            (Some(name), c) => {
                name.push(c);
                self.pieces.push(piece);
                if name.len() > MAX_TAG {
                    self.flush(&mut part);
                }
            }
        }
    }

    /// Gives back what was held as plain characters.
    pub(crate) fn flush(&mut self, part: &mut impl FnMut(Part<'_>)) {
        if let Some(name) = self.held.take() {
            part(Part::Char('<'));
            name.chars().for_each(|c| part(Part::Char(c)));
        }
    }
}

/// The number in a tag such as `loc_12`, if `name` is `prefix` and then one to six digits.
pub(crate) fn number(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    let plain = (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::{super::tally::Pieces, *};

    fn parts(text: &str) -> String {
        let mut tags = Tags::default();
        let mut out = String::new();
        let mut part = |p: Part<'_>| match p {
            Part::Char(c) => out.push(c),
            Part::Tag(name, _) => {
                out.push('{');
                out.push_str(name);
                out.push('}');
            }
        };
        let piece = Pieces::default().next(None);
        for c in text.chars() {
            tags.step(c, piece, &mut part);
        }
        tags.flush(&mut part);
        out
    }

    #[test]
    fn tags_are_told_from_lone_angle_brackets() {
        assert_eq!(parts("a<b>c"), "a{b}c");
        assert_eq!(parts("1 < 2 <loc_3>"), "1 < 2 {loc_3}");
        assert_eq!(parts("<<x>"), "<{x}");
        assert_eq!(parts("<open"), "<open");
        let long = format!("<{}>", "x".repeat(MAX_TAG + 5));
        assert_eq!(parts(&long), long);
    }

    #[test]
    fn a_tag_number_is_digits_and_nothing_else() {
        assert_eq!(number("loc_012", "loc_"), Some(12));
        for name in ["loc_", "loc_-1", "loc_+1", "loc_1234567", "bin_1", "loc_٣", "loc_1 "] {
            assert_eq!(number(name, "loc_"), None, "{name}");
        }
    }
}
