//! Which topics the broker keeps a value of ours under, remembered across restarts: what the next start no longer sets can
//! be taken back then, where it would stay for ever otherwise.
//!
//! A file of lines, `+topic` and `-topic`; it is read, and written anew, at the start and when most of its lines say nothing
//! any more, or gone on with where there is no room for that. It may be behind after a crash: then a topic stays, or is cleared twice, and no more than that.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

const FILE: &str = "topics";

/// So many lines more than there are topics, at least, are worth being written anew.
const SLACK: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Kept {
    dir: PathBuf,
    file: fs::File,
    /// Lines that were added since the file was written anew.
    added: usize,
    /// The last line was not written to its end.
    torn: bool,
    topics: BTreeSet<String>,
}

impl Kept {
    /// Opens the list in `dir`; also returns the topics of earlier starts.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, BTreeSet<String>)> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut topics = BTreeSet::new();
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("+", topic)) => drop(topics.insert(topic.to_owned())),
                Some(("-", topic)) => drop(topics.remove(topic)),
                _ => {}
            }
        }
        let (file, torn) = match write(dir, &topics) {
            Ok(file) => (file, false),
            // The old one says the same in more lines. Without it, what counts is why there is no new one.
            Err(error) => {
                let old = fs::OpenOptions::new().append(true).open(&path).map_err(|_| error)?;
                (old, !text.is_empty() && !text.ends_with('\n'))
            }
        };
        Ok((Self { dir: dir.to_owned(), file, added: 0, torn, topics: topics.clone() }, topics))
    }

    /// The broker will keep a value under each of `topics`, and under no others.
    pub(super) fn list(&mut self, topics: &BTreeSet<String>) -> io::Result<()> {
        let changed: Vec<_> = self.topics.symmetric_difference(topics).cloned().collect();
        changed.iter().try_for_each(|topic| self.note(topic, topics.contains(topic)))
    }

    /// The broker will keep a value under `topic`, or none any more.
    fn note(&mut self, topic: &str, value: bool) -> io::Result<()> {
        if self.topics.contains(topic) == value {
            return Ok(());
        }
        // First the line: without it, it is tried again the next time.
        self.add(&format!("{}{topic}\n", if value { '+' } else { '-' }))?;
        if value {
            self.topics.insert(topic.to_owned());
        } else {
            self.topics.remove(topic);
        }
        if self.added > SLACK + 4 * self.topics.len() {
            // Where there is no room for that, the old one says the same.
            self.added = 0;
            if let Ok(file) = write(&self.dir, &self.topics) {
                self.file = file;
            }
        }
        Ok(())
    }

    fn add(&mut self, line: &str) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(line.as_bytes())?;
        (self.torn, self.added) = (false, self.added + 1);
        Ok(())
    }
}

/// Puts a list of just `topics` in the place of the one in `dir`.
fn write(dir: &Path, topics: &BTreeSet<String>) -> io::Result<fs::File> {
    let mut fresh = tempfile::NamedTempFile::new_in(dir)?;
    topics.iter().try_for_each(|topic| writeln!(fresh, "+{topic}"))?;
    fresh.persist(dir.join(FILE)).map_err(|error| error.error)
}

#[cfg(test)]
impl Kept {
    /// Writes to `file` from now on: one that cannot be written stands for a disk that is full. Returns the one before.
    pub(super) fn write_to(&mut self, file: fs::File) -> fs::File {
        std::mem::replace(&mut self.file, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_remembered_until_they_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, before) = Kept::open(dir.path()).unwrap();
        assert!(before.is_empty());
        for (topic, value) in [("a/b", true), ("a/b", true), ("c", true), ("c", false), ("never", false)] {
            kept.note(topic, value).unwrap();
        }
        fs::OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap().write_all(b"+torn").unwrap();
        let (mut kept, before) = Kept::open(dir.path()).unwrap();
        assert_eq!(before.into_iter().collect::<Vec<_>>(), ["a/b", "torn"]);
        kept.note("d", true).unwrap();
        assert_eq!(Kept::open(dir.path()).unwrap().1.len(), 3);
    }

    #[test]
    fn the_list_becomes_what_it_is_told_to_be() {
        let dir = tempfile::tempdir().unwrap();
        for topics in [["a", "b"], ["b", "c"]] {
            // What is read is written anew, so that one that was open writes to nothing.
            let (mut kept, _) = Kept::open(dir.path()).unwrap();
            kept.list(&topics.map(str::to_owned).into()).unwrap();
            assert!(Kept::open(dir.path()).unwrap().1.iter().eq(topics));
        }
    }

    #[test]
    fn a_line_after_one_that_was_torn_stands_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "+a\n+tor").unwrap();
        let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut kept = Kept { dir: dir.path().to_owned(), file, added: 0, torn: true, topics: BTreeSet::new() };
        kept.note("b", true).unwrap();
        kept.note("c", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "+a\n+tor\n+b\n+c\n");
    }

    #[test]
    fn a_topic_that_comes_and_goes_for_ever_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, _) = Kept::open(dir.path()).unwrap();
        kept.note("stays", true).unwrap();
        for _ in 0..5000 {
            kept.note("comes/and/goes", true).unwrap();
            kept.note("comes/and/goes", false).unwrap();
        }
        assert!(fs::read(dir.path().join(FILE)).unwrap().len() < 25_000);
        assert_eq!(Kept::open(dir.path()).unwrap().1.into_iter().collect::<Vec<_>>(), ["stays"]);
    }

    #[test]
    fn a_list_that_can_be_neither_read_nor_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(Kept::open(dir.path()).is_err());
    }
}
