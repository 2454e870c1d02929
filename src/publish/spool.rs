//! The outbox's journal on disk: one append-only file of checksummed records, rewritten when most of it is history.
//!
//! A record is in the page cache when [`Spool::append`] returns: it survives the daemon's death (`kill -9`, a crash),
//! not a power cut, since nothing is synced but a rewritten file before it replaces the old one. A torn or damaged tail is
//! cut off at the first record that does not check out; everything before it counts.
//! (Own code: the published queues on disk take from one end only and cannot drop the oldest event that is not on its
//! way, or are not maintained.)

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    SpoolError,
    outbox::{Gap, Record},
};

const MAGIC: &[u8; 8] = b"GNDSPL01";
/// Length and checksum before each record's body.
const HEAD: usize = 8;
/// A spool this small is never rewritten.
const SMALL: u64 = 1 << 20;

/// The journal's file. One process at a time has it.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    /// Bytes that are whole records; what lies beyond was torn by a failed write.
    good: u64,
    torn: bool,
    _lock: File,
}

/// What a spool contained when it was opened.
pub(super) struct Recovered {
    pub(super) records: Vec<Record>,
    /// Bytes cut off because they were no whole records.
    pub(super) cut: u64,
    /// Why nothing can be written for now: there is no room.
    pub(super) full: Option<io::Error>,
}

/// Whether events could be kept in `dir`, or in the folder in which it would be made. Changes nothing, and leaves the
/// lock alone: a running daemon may hold it.
pub(super) fn check(dir: &Path) -> Result<(), SpoolError> {
    // A link is there even where what it names is not.
    let there = dir.ancestors().find(|folder| folder.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    let tried = tempfile::tempfile_in(there).map(drop);
    tried.map_err(|source| SpoolError::Io { path: dir.to_owned(), source })
}

impl Spool {
    /// Opens the spool in `dir`, made if missing, and reads what it holds. A disk without room is no error: there may be
    /// some before the next event.
    pub(super) fn open(dir: &Path) -> Result<(Self, Recovered), SpoolError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| SpoolError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let lock_path = dir.join("lock");
        let lock = private().truncate(false).open(&lock_path).map_err(failed(&lock_path))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => SpoolError::InUse(dir.to_owned()),
            TryLockError::Error(e) => failed(&lock_path)(e),
        })?;
        let path = dir.join("events.spool");
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(failed(&path))?,
        };
        let (records, good) = decode_all(&bytes);
        let file = private().truncate(false).open(&path).map_err(failed(&path))?;
        let mut spool = Self { path, file, good, torn: bytes.len() as u64 != good, _lock: lock };
        let full = match spool.mend() {
            Err(error) if is_full(&error) => Some(error),
            mended => mended.map(|()| None).map_err(failed(&spool.path))?,
        };
        let recovered = Recovered { records, cut: bytes.len() as u64 - good, full };
        Ok((spool, recovered))
    }

    /// Adds records at the end. After a failure the file is as it was, or is mended at the next call.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.mend()?;
        let mut bytes = Vec::new();
        for record in records {
            encode(record, &mut bytes);
        }
        self.torn = true;
        self.file.write_all(&bytes)?;
        self.good += bytes.len() as u64;
        self.torn = false;
        Ok(())
    }

    /// Whether so much of the file is history that a rewrite pays; `live` is what would remain, in bytes.
    pub(super) fn is_stale(&self, live: usize) -> bool {
        self.good > SMALL && self.good / 2 > live as u64
    }

    /// Replaces the file with one that holds just `records`; after a failure it is as it was.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        for record in records {
            encode(record, &mut bytes);
        }
        let new = self.path.with_extension("new");
        // What there is of it would take the room that is wanted. There may be nothing.
        let file = self.replace(&new, &bytes).inspect_err(|_| drop(fs::remove_file(&new)))?;
        (self.file, self.good, self.torn) = (file, bytes.len() as u64, false);
        Ok(())
    }

    fn replace(&self, new: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut file = private().truncate(true).open(new)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(new, &self.path)?;
        Ok(file)
    }

    /// Cuts a torn tail off and leaves the file ready to append to.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn || self.good == 0 {
            self.file.set_len(self.good)?;
            self.torn = false;
        }
        io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.good))?;
        if self.good == 0 {
            self.torn = true;
            self.file.write_all(MAGIC)?;
            (self.good, self.torn) = (MAGIC.len() as u64, false);
        }
        Ok(())
    }
}

/// Whether there is no room on the disk, or none for this user.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; HEAD]);
    match record {
        Record::Event { seq, at, topic, payload } => {
            out.push(0);
            out.extend(seq.to_le_bytes());
            out.extend(at.to_le_bytes());
            out.extend(u32::try_from(topic.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(topic.as_bytes());
            out.extend(payload);
        }
        Record::Done { seq, lost } => {
            out.extend([1, u8::from(*lost)]);
            out.extend(seq.to_le_bytes());
        }
        Record::Gap { topic, gap } => {
            out.push(2);
            for number in [gap.lost, gap.since, gap.until] {
                out.extend(number.to_le_bytes());
            }
            out.extend(topic.as_bytes());
        }
    }
    let body = &out[start + HEAD..];
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32fast::hash(body).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + HEAD].copy_from_slice(&sum);
}

/// All whole records from the start of a file, and how many bytes they and the header take.
fn decode_all(bytes: &[u8]) -> (Vec<Record>, u64) {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return (Vec::new(), 0) };
    let mut records = Vec::new();
    while let Some((record, after)) = decode(rest) {
        records.push(record);
        rest = after;
    }
    (records, (bytes.len() - rest.len()) as u64)
}

fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((decode_body(body)?, rest))
}

fn decode_body(body: &[u8]) -> Option<Record> {
    let (kind, mut rest) = body.split_first()?;
    let mut number = || {
        let (n, after) = rest.split_first_chunk::<8>()?;
        rest = after;
        Some(u64::from_le_bytes(*n))
    };
    match kind {
        0 => {
            let (seq, at) = (number()?, number()?);
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (topic, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let topic = std::str::from_utf8(topic).ok()?.to_owned();
            Some(Record::Event { seq, at, topic, payload: Bytes::copy_from_slice(payload) })
        }
        1 => {
            let (lost, rest) = rest.split_first()?;
            let seq = u64::from_le_bytes(rest.try_into().ok()?);
            Some(Record::Done { seq, lost: *lost != 0 })
        }
        2 => {
            let gap = Gap { lost: number()?, since: number()?, until: number()? };
            let topic = std::str::from_utf8(rest).ok()?.to_owned();
            Some(Record::Gap { topic, gap })
        }
        _ => None,
    }
}

#[cfg(test)]
impl Spool {
    /// Writes to `file` from now on: one that cannot be written stands for a disk that is full. Returns the one before.
    pub(super) fn write_to(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            (any::<u64>(), any::<u64>(), "[a-zö/]{0,20}", proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(seq, at, topic, payload)| Record::Event { seq, at, topic, payload: payload.into() }),
            (any::<u64>(), any::<bool>()).prop_map(|(seq, lost)| Record::Done { seq, lost }),
            ("[a-z/]{0,20}", any::<[u64; 3]>())
                .prop_map(|(topic, [lost, since, until])| Record::Gap { topic, gap: Gap { lost, since, until } }),
        ]
    }

    fn file(dir: &Path) -> PathBuf {
        dir.join("events.spool")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cut_at_any_byte_a_prefix_remains_and_can_be_added_to(
            records in proptest::collection::vec(record(), 1..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            Spool::open(dir.path()).unwrap().0.append(&records).unwrap();
            let whole = fs::read(file(dir.path())).unwrap();
            for length in 0..=whole.len() {
                fs::write(file(dir.path()), &whole[..length]).unwrap();
                let (mut spool, recovered) = Spool::open(dir.path()).unwrap();
                let kept = recovered.records.len();
                prop_assert_eq!(&recovered.records[..], &records[..kept]);
                prop_assert_eq!(length == whole.len(), kept == records.len());
                spool.append(&records[..1]).unwrap();
                drop(spool);
                let again = Spool::open(dir.path()).unwrap().1;
                prop_assert_eq!((again.records.len(), again.cut), (kept + 1, 0));
            }
        }

        #[test]
        fn damage_never_panics_and_leaves_what_came_before(
            records in proptest::collection::vec(record(), 1..6), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let mut bytes = MAGIC.to_vec();
            let mut ends = vec![bytes.len()];
            for record in &records {
                encode(record, &mut bytes);
                ends.push(bytes.len());
            }
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let (kept, good) = decode_all(&bytes);
            let whole = ends.iter().filter(|end| **end <= at).count().saturating_sub(1);
            prop_assert_eq!(&kept[..], &records[..whole]);
            prop_assert!(good <= at as u64);
        }

        #[test]
        fn noise_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u32..200) {
            // A length that fits leaves it to the checksum.
            let length = length.to_le_bytes();
            for head in [&length[..0], &length[..]] {
                let file = [&MAGIC[..], head, &bytes[..]].concat();
                let (records, good) = decode_all(&file);
                prop_assert_eq!((records.len(), good), (0, MAGIC.len() as u64));
            }
        }
    }

    #[test]
    fn a_rewrite_replaces_history_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path()).unwrap();
        let event = |seq| Record::Event { seq, at: 0, topic: "t".into(), payload: vec![7; 100_000].into() };
        for seq in 0..20 {
            spool.append(&[event(seq), Record::Done { seq, lost: false }]).unwrap();
        }
        assert!(spool.is_stale(100_000) && !spool.is_stale(1_500_000));
        spool.rewrite(&[event(20)]).unwrap();
        spool.append(&[event(21)]).unwrap();
        drop(spool);
        let (spool, recovered) = Spool::open(dir.path()).unwrap();
        assert_eq!((recovered.records, recovered.cut), (vec![event(20), event(21)], 0));
        assert!(spool.good < 300_000);
    }

    #[test]
    fn a_rewrite_that_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path()).unwrap();
        // A file cannot take the place of a folder.
        fs::remove_file(file(dir.path())).unwrap();
        fs::create_dir(file(dir.path())).unwrap();
        assert!(spool.rewrite(&[]).is_err());
        assert!(!dir.path().join("events.new").exists());
    }

    #[test]
    fn a_disk_without_room_is_told_from_one_that_fails() {
        let full = File::options().write(true).open("/dev/full").unwrap().write_all(MAGIC).unwrap_err();
        assert!(is_full(&full), "{full}");
        assert!(!is_full(&io::ErrorKind::PermissionDenied.into()));
    }

    #[test]
    fn a_check_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        check(&dir.path().join("a/b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(check(&dir.path().join("file/b")).is_err());
    }

    #[test]
    fn two_daemons_cannot_share_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let first = Spool::open(dir.path()).unwrap();
        assert!(matches!(Spool::open(dir.path()), Err(SpoolError::InUse(_))));
        drop(first);
        assert!(Spool::open(dir.path()).is_ok());
    }
}
