//! A forgiving, incremental reader of `{"key": value}` objects in the middle of anything.
//!
//! Models wrap their JSON in prose, in ```` ```json ```` fences, in lists or in none; use Python's quotes and tuples;
//! and stop in the middle. So this does not parse a document: it looks for objects, and hands out each one as it
//! closes, with the one list of numbers and the one string asked for. An object that breaks the grammar is dropped at
//! the character that breaks it, and the search goes on with that very character.
//!
//! Depth, strings and lists are bounded, so hostile text costs no memory.

use super::{
    MAX_LABEL,
    tally::{Piece, Tally},
};

/// Objects within objects; deeper ones restart the search.
const MAX_DEPTH: usize = 8;
/// Longest list of numbers; what is longer is no list of four.
const MAX_LIST: usize = 16;

/// What a closed object held.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object {
    /// The numbers under the wanted list key; `None` if it was absent or not a plain list of numbers.
    pub(crate) list: Option<Vec<f64>>,
    /// The string under the wanted text key.
    pub(crate) text: Option<String>,
    /// The pieces that hold the list's numbers.
    pub(crate) tally: Tally,
}

/// Finds objects with a list under `list_key` and a string under `text_key`.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    list_key: &'static str,
    text_key: &'static str,
    open: Vec<Open>,
    word: Option<Word>,
}

/// An object that has not closed yet.
#[derive(Debug, Clone)]
struct Open {
    found: Object,
    key: String,
    expect: Expect,
}

#[derive(Debug, Clone)]
enum Expect {
    KeyOrEnd,
    Colon,
    Value,
    List(List),
    CommaOrEnd,
}

#[derive(Debug, Clone, Default)]
struct List {
    depth: usize,
    numbers: Vec<f64>,
    /// Holds something other than numbers, or too many: read to its end, then forgotten.
    spoilt: bool,
    after_item: bool,
}

/// A string or bare word that has not ended yet.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    /// The closing quote; `None` is a bare word.
    quote: Option<char>,
    escaped: bool,
}

impl Objects {
    pub(crate) fn new(list_key: &'static str, text_key: &'static str) -> Self {
        Self { list_key, text_key, open: Vec::new(), word: None }
    }

    /// Whether some object has begun and not ended.
    pub(crate) fn inside(&self) -> bool {
        !self.open.is_empty()
    }

    /// Forgets every object that has not closed.
    pub(crate) fn reset(&mut self) {
        self.open.clear();
        self.word = None;
    }

    /// Takes a character; returns the object it closed.
    pub(crate) fn step(&mut self, c: char, piece: Piece) -> Option<Object> {
        match self.word.take() {
            Some(word) if word.quote.is_some() => {
                self.string(word, c, piece);
                None
            }
            Some(word) if is_bare(c) && word.text.len() < MAX_LABEL => {
                self.bare(word, c, piece);
                None
            }
            Some(word) => {
                if self.item(&word.text, false).is_none() {
                    self.reset();
                }
                self.structure(c, piece)
            }
            None => self.structure(c, piece),
        }
    }

    fn bare(&mut self, mut word: Word, c: char, piece: Piece) {
        self.touch(piece);
        word.text.push(c);
        self.word = Some(word);
    }

    fn string(&mut self, mut word: Word, c: char, piece: Piece) {
        if word.escaped {
            word.escaped = false;
            // `\u0041` and its like stay as written: no family names things so.
            word.text.push(if c == 'n' || c == 't' { ' ' } else { c });
            self.word = Some(word);
        } else if Some(c) == word.quote {
            if self.item(&word.text, true).is_none() {
                self.reset();
            }
        } else if c == '\n' || word.text.len() >= MAX_LABEL {
            self.reset();
        } else {
            self.touch(piece);
            if c == '\\' {
                word.escaped = true;
            } else {
                word.text.push(c);
            }
            self.word = Some(word);
        }
    }

    /// The piece belongs to the box if it is within the wanted list.
    fn touch(&mut self, piece: Piece) {
        if let Some(open) = self.open.last_mut()
            && matches!(open.expect, Expect::List(_))
            && open.key == self.list_key
        {
            open.found.tally.touch(piece);
        }
    }

    /// A character outside strings and words. Anything the grammar does not allow here ends the search's patience.
    fn structure(&mut self, c: char, piece: Piece) -> Option<Object> {
        if c.is_whitespace() {
            return None;
        }
        if c == '}' {
            return self.close();
        }
        if self.allowed(c).is_none() {
            self.reset();
        }
        if c == '{' {
            if self.open.len() == MAX_DEPTH {
                self.reset();
            }
            self.open.push(Open { found: Object::default(), key: String::new(), expect: Expect::KeyOrEnd });
        } else if self.inside() && is_bare(c) {
            self.bare(Word { text: String::new(), quote: None, escaped: false }, c, piece);
        } else if self.inside() && matches!(c, '"' | '\'') {
            self.word = Some(Word { text: String::new(), quote: Some(c), escaped: false });
        }
        None
    }

    /// Moves the innermost object on by a structural character; `None` if the grammar does not allow it there.
    fn allowed(&mut self, c: char) -> Option<()> {
        let open = self.open.last_mut()?;
        match (&mut open.expect, c) {
            (Expect::KeyOrEnd, '"' | '\'') => {}
            (Expect::Colon, ':') => open.expect = Expect::Value,
            (Expect::Value, '{') => open.expect = Expect::CommaOrEnd,
            (Expect::Value, '[' | '(') => {
                open.expect = Expect::List(List { depth: 1, ..List::default() });
                if open.key == self.list_key {
                    open.found.tally = Tally::default();
                    open.found.list = None;
                }
            }
            (Expect::Value, c) if is_bare(c) || matches!(c, '"' | '\'') => {}
            (Expect::CommaOrEnd, ',') => open.expect = Expect::KeyOrEnd,
            (Expect::List(list), c) => {
                if let Some(numbers) = list.step(c)? {
                    open.expect = Expect::CommaOrEnd;
                    if open.key == self.list_key {
                        open.found.list = numbers;
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// A string or word is complete: a key, a value or a list item.
    fn item(&mut self, text: &str, quoted: bool) -> Option<()> {
        let open = self.open.last_mut()?;
        match &mut open.expect {
            Expect::KeyOrEnd if quoted => {
                text.clone_into(&mut open.key);
                open.expect = Expect::Colon;
            }
            Expect::Value => {
                if quoted && open.key == self.text_key {
                    open.found.text = Some(text.to_owned());
                }
                open.expect = Expect::CommaOrEnd;
            }
            Expect::List(list) => list.item(text),
            _ => return None,
        }
        Some(())
    }

    fn close(&mut self) -> Option<Object> {
        let whole = matches!(self.open.last()?.expect, Expect::KeyOrEnd | Expect::CommaOrEnd);
        if whole {
            return self.open.pop().map(|o| o.found);
        }
        self.reset();
        None
    }
}

impl List {
    /// A structural character within the list. `None`: not allowed; `Some(Some(..))`: the list is closed.
    #[expect(clippy::option_option, reason = "refused, open, closed; and what it held, if plain numbers")]
    fn step(&mut self, c: char) -> Option<Option<Option<Vec<f64>>>> {
        match c {
            '[' | '(' | '{' if !self.after_item => {
                self.spoilt = true;
                if c == '{' {
                    self.after_item = true;
                } else {
                    self.depth += 1;
                }
            }
            ']' | ')' => {
                self.depth -= 1;
                self.after_item = true;
                if self.depth == 0 {
                    let numbers = std::mem::take(&mut self.numbers);
                    return Some(Some((!self.spoilt).then_some(numbers)));
                }
            }
            ',' if self.after_item => self.after_item = false,
            c if !self.after_item && (is_bare(c) || matches!(c, '"' | '\'')) => {}
            _ => return None,
        }
        Some(None)
    }

    fn item(&mut self, text: &str) {
        self.after_item = true;
        match text.trim().parse::<f64>() {
            Ok(v) if v.is_finite() && self.numbers.len() < MAX_LIST => self.numbers.push(v),
            _ => self.spoilt = true,
        }
    }
}

/// Characters of numbers, `true`, `None` and the like.
fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')
}

#[cfg(test)]
mod tests {
    use super::{super::tally::Pieces, *};
    use crate::types::query::MAX_TEXT;

    /// `text:numbers` of each object.
    fn objects(text: &str) -> Vec<String> {
        let mut objects = Objects::new("box", "name");
        let piece = Pieces::default().next(None);
        let found = text.chars().filter_map(|c| objects.step(c, piece));
        found.map(|o| format!("{}:{:?}", o.text.unwrap_or_default(), o.list.unwrap_or_default())).collect()
    }

    #[test]
    fn objects_are_found_in_whatever_surrounds_them() {
        let two = ["a:[1.0, 2.0]", "b:[3.0]"];
        for text in [
            r#"[{"box": [1, 2], "name": "a"}, {"box":[3],"name":"b"}]"#,
            r#"Sure! Here's: ```json [{"name":"a","box":[1,2]},{"name":"b","box":[3]}]``` It's done {:-}"#,
            "{'box': (1, 2,), 'name': 'a', 'x': None, }\n{'name': 'b', 'box': ['3']}",
            r#"{{{"box": ["1.0", 2e0], "name": "a"} {"name": "b", "box": [3.]"#,
            r#"{it's {"box":[1,2],"name":"a","ok":true} }}} {"box":[3],"name":"b"}"#,
        ] {
            let expected = if text.ends_with("[3.]") { &two[..1] } else { &two[..] };
            assert_eq!(objects(text), expected, "{text}");
        }
    }

    #[test]
    fn objects_nest() {
        let text = r#"{"all": [{"box":[1],"name":"a"}, {"box":[2],"name":"b"}], "name": "c", "o": {}, "box": [3]}"#;
        assert_eq!(objects(text), ["a:[1.0]", "b:[2.0]", ":[]", "c:[3.0]"]);
    }

    #[test]
    fn broken_objects_are_dropped_and_do_not_hide_the_next() {
        for broken in [
            r#"{"name": "x", "box" [1]}"#,
            r#"{"name": "x" "box": [1]}"#,
            r#"{"box": [1 2], "name": "x"}"#,
            r#"{"box": [1], "name": "x"#,
            "{\"name\": \"x\n\", \"box\": [1]}",
            r#"{"box": [1,, 2]}"#,
            "{box: [1]}",
            r#"{"box": [1}"#,
            r#"{"box": [1];}"#,
        ] {
            assert_eq!(objects(&format!("{broken}\n{{\"box\":[7],\"name\":\"ok\"}}")), ["ok:[7.0]"], "{broken}");
        }
    }

    #[test]
    fn a_list_that_is_not_plain_numbers_is_no_list() {
        for list in ["[[1,2]]", "[1,\"x\"]", "[nan]", "[1e999]", "[{}]", "null", "\"1,2\"", "[1,2,[3]]"] {
            let got = objects(&format!("{{\"box\": {list}, \"name\": \"a\"}}"));
            assert_eq!(got.last().unwrap(), "a:[]", "{list}");
        }
    }

    #[test]
    fn strings_may_hold_anything_but_a_line_break() {
        assert_eq!(objects(r#"{"name":"a {\"b\"} man's ]","box":[1]}"#), ["a {\"b\"} man's ]:[1.0]"]);
        assert_eq!(objects(r"{'name':'man\'s','box':[1]}"), ["man's:[1.0]"]);
        assert_eq!(
            objects(&format!("{{\"name\":\"{}\",\"box\":[1]}}", "x".repeat(MAX_LABEL + 1))),
            Vec::<String>::new()
        );
        let longest = "\u{8eca}".repeat(MAX_TEXT);
        assert_eq!(objects(&format!("{{\"name\":\"{longest}\",\"box\":[1]}}")), [format!("{longest}:[1.0]")]);
    }
}
