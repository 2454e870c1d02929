//! The thread that writes to disk, and waits for it, so that nobody else has to: it owns the spool and the list of topics.

use std::{io, mem, path::Path, sync::Arc, thread, time::Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    SpoolError,
    kept::Kept,
    outbox::Outbox,
    pending::{Batch, Outcome, Pending},
    shared::Shared,
    spool::Spool,
};

/// See the module.
pub(super) struct Keeper {
    spool: Spool,
    /// None where it could not be opened.
    kept: Option<Kept>,
    /// That they cannot be written was said.
    spool_fails: bool,
    kept_fails: bool,
}

impl Keeper {
    /// Opens what is in `dir`; also returns the outbox of earlier starts, for `capacity` events.
    pub(super) fn open(dir: &Path, capacity: usize) -> Result<(Self, Outbox, Pending), SpoolError> {
        let (spool, recovered) = Spool::open(dir)?;
        if recovered.cut > 0 {
            tracing::warn!(spool = %dir.display(), bytes = recovered.cut, "cut a damaged end off the spool");
        }
        if let Some(error) = recovered.full {
            tracing::warn!(spool = %dir.display(), %error, "the spool cannot be written until there is room");
        }
        // After the spool, whose lock holds for the folder.
        let kept = Kept::open(dir).inspect_err(|error| {
            tracing::warn!(spool = %dir.display(), %error, "what the broker keeps for us cannot be noted");
        });
        let (kept, topics) = kept.ok().unzip();
        let keeper = Self { spool, kept, spool_fails: false, kept_fails: false };
        Ok((keeper, Outbox::replay(capacity, recovered.records), Pending::new(topics, Instant::now())))
    }

    /// Writes what comes, in a thread of its own, until there is no more; then `done` goes, and what is returned is cancelled.
    pub(super) fn start(self, shared: Arc<Shared>, done: DropGuard) -> io::Result<CancellationToken> {
        let over = CancellationToken::new();
        let ended = over.clone().drop_guard();
        thread::Builder::new().name("spool".into()).spawn(move || {
            let _over = (ended, done);
            self.run(&shared);
        })?;
        Ok(over)
    }

    fn run(mut self, shared: &Shared) {
        while let Some(batch) = shared.to_write(|live| self.spool.is_stale(live)) {
            let outcome = self.write(&batch);
            self.tell(&outcome);
            shared.wrote(&outcome);
        }
    }

    fn write(&mut self, batch: &Batch) -> Outcome {
        let rewritten = batch.whole.as_ref().map(|whole| self.spool.rewrite(whole));
        let (spool, lacking) = match rewritten {
            Some(Ok(())) => (Ok(()), false),
            // There may be room for the last words, where there is none for all of it.
            failed => {
                let added = if batch.records.is_empty() { Ok(()) } else { self.spool.append(&batch.records) };
                let lacking = batch.lacking || added.is_err();
                (failed.unwrap_or(Ok(())).and(added), lacking)
            }
        };
        let topics = self.kept.as_mut().zip(batch.topics.as_ref()).map(|(kept, topics)| kept.list(topics));
        Outcome { spool, lacking, topics }
    }

    /// Says once what is wrong, not at every attempt, and that it is over.
    fn tell(&mut self, Outcome { spool, lacking, topics }: &Outcome) {
        if let Err(error) = spool
            && *lacking
            && !mem::replace(&mut self.spool_fails, true)
        {
            tracing::error!(%error, "events cannot be spooled; until they can, a crash loses those that wait");
        }
        if !lacking && mem::take(&mut self.spool_fails) {
            tracing::info!("the spool can be written again");
        }
        match topics {
            Some(Err(error)) if !mem::replace(&mut self.kept_fails, true) => {
                tracing::warn!(%error, "topics cannot be noted; they may stay at the broker when they are gone here");
            }
            Some(Ok(())) if mem::take(&mut self.kept_fails) => tracing::info!("topics can be noted again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs::{self, File},
        io::Read,
        time::{Duration, SystemTime},
    };

    use bytes::Bytes;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::publish::{
        logged::logged,
        outbox::Record,
        pending::MEND,
        shared::{Item, Spooled},
    };

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn started(keeper: Keeper, outbox: Outbox, pending: Pending) -> (Arc<Shared>, CancellationToken) {
        let shared = Arc::new(Shared::new(outbox, Some(pending)));
        let over = keeper.start(Arc::clone(&shared), CancellationToken::new().drop_guard()).unwrap();
        (shared, over)
    }

    fn end(shared: &Shared, over: &CancellationToken) {
        shared.end_writing();
        until("the end", || over.is_cancelled());
    }

    fn event(shared: &Shared, payload: impl Into<Bytes>) {
        shared.event("t".to_owned(), payload.into(), SystemTime::now());
    }

    /// A keeper whose file cannot be written, and neither can a new one until the folder that is returned is gone.
    fn broken(dir: &Path) -> (Arc<Shared>, CancellationToken, impl FnOnce()) {
        let (mut keeper, outbox, pending) = Keeper::open(dir, 10).unwrap();
        keeper.spool.write_to(File::open(dir.join("events.spool")).unwrap());
        let obstacle = dir.join("events.new");
        fs::create_dir(&obstacle).unwrap();
        let (shared, over) = started(keeper, outbox, pending);
        event(&shared, "1");
        until("the failure", || shared.stats().spool_errors > 0);
        assert_eq!(shared.spooled(), Spooled::InPart);
        (shared, over, move || fs::remove_dir(obstacle).unwrap())
    }

    /// Makes a spool of so much history that it is written anew.
    fn make_history(dir: &Path) {
        let event = Record::Event { seq: 0, at: 0, topic: "t".into(), payload: vec![0; 2 << 20].into() };
        Spool::open(dir).unwrap().0.append(&[event, Record::Done { seq: 0, lost: false }]).unwrap();
    }

    /// How many events are in the spool of a keeper that has ended.
    fn found(dir: &Path) -> usize {
        Keeper::open(dir, 10).unwrap().1.waiting()
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        make_history(dir.path());
        // It is written anew into a pipe that nobody empties.
        let pipe = dir.path().join("events.new");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (keeper, outbox, pending) = Keeper::open(dir.path(), 10).unwrap();
        let (shared, over) = started(keeper, outbox, pending);
        event(&shared, vec![b'x'; 200_000]);
        let mut pipe = File::open(pipe).unwrap();
        pipe.read_exact(&mut [0; 8]).unwrap();
        let began = Instant::now();
        for n in 0..3000 {
            event(&shared, format!("{n:>1000}"));
            shared.state(format!("s{n}"), Bytes::from_static(b"ON"));
            let (item, _) = shared.take().unwrap();
            shared.done(&item, None);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(shared.spooled(), Spooled::InPart);
        // It goes on, and its pipe is no file.
        pipe.read_to_end(&mut Vec::new()).unwrap();
        until("all of it to be written", || shared.spooled() == Spooled::Whole);
        assert!(shared.stats().spool_errors > 0);
        let waiting = shared.stats().events_waiting;
        end(&shared, &over);
        let (_, mut outbox, pending) = Keeper::open(dir.path(), 10).unwrap();
        assert_eq!((outbox.waiting() as u64, pending.topics().map(BTreeSet::len)), (waiting, Some(3000)));
        let last = std::iter::from_fn(|| outbox.take()).last().unwrap().2;
        assert_eq!(last, format!("{:>1000}", 2999));
    }

    #[test]
    fn a_disk_that_has_room_again_is_found_without_a_new_event() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, over, repair) = broken(dir.path());
        repair();
        until("the event to be written", || shared.spooled() == Spooled::Whole);
        end(&shared, &over);
        assert_eq!(found(dir.path()), 1);
    }

    #[test]
    fn what_has_no_room_to_be_written_anew_is_added_to() {
        let dir = tempfile::tempdir().unwrap();
        make_history(dir.path());
        fs::create_dir(dir.path().join("events.new")).unwrap();
        let (keeper, outbox, pending) = Keeper::open(dir.path(), 10).unwrap();
        let (shared, over) = started(keeper, outbox, pending);
        event(&shared, "1");
        until("the failure", || shared.stats().spool_errors > 0);
        until("the event to be written", || shared.spooled() == Spooled::Whole);
        end(&shared, &over);
        assert_eq!(found(dir.path()), 1);
    }

    #[test]
    fn the_end_tries_a_last_time_and_only_once() {
        for works in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (shared, over, repair) = broken(dir.path());
            if works {
                repair();
            }
            let began = Instant::now();
            end(&shared, &over);
            assert!(began.elapsed() < MEND * 3 / 4, "{:?}", began.elapsed());
            assert_eq!(shared.spooled(), if works { Spooled::Whole } else { Spooled::InPart });
            assert_eq!(found(dir.path()), usize::from(works));
        }
    }

    #[test]
    fn what_is_acknowledged_is_not_in_the_spool_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (keeper, outbox, pending) = Keeper::open(dir.path(), 10).unwrap();
        let (shared, over) = started(keeper, outbox, pending);
        event(&shared, "1");
        event(&shared, "2");
        let (item, _) = shared.take().unwrap();
        assert!(matches!(item, Item::Event(_)));
        shared.done(&item, None);
        end(&shared, &over);
        assert_eq!(found(dir.path()), 1);
    }

    #[test]
    fn a_full_disk_is_told_once_and_so_is_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, mut outbox, mut pending) = Keeper::open(dir.path(), 10).unwrap();
        let full = |file: &str| File::open(dir.path().join(file)).unwrap();
        let spool = keeper.spool.write_to(full("events.spool"));
        let kept = keeper.kept.as_mut().unwrap();
        let topics = kept.write_to(full("topics"));
        let obstacle = dir.path().join("events.new");
        fs::create_dir(&obstacle).unwrap();
        let mut now = Instant::now();
        let mut turn = |keeper: &mut Keeper, n: u32| {
            now += MEND;
            pending.push(outbox.push("t".into(), n.to_string().into(), SystemTime::now()));
            pending.note(&format!("t{n}"), true);
            let outcome = keeper.write(&pending.take(&outbox, false, now));
            keeper.tell(&outcome);
            pending.wrote(&outcome, now);
        };
        let said = logged(|| (0..5).for_each(|n| turn(&mut keeper, n)));
        let count = |said: &str, what| said.matches(what).count();
        assert_eq!((count(&said, "cannot be spooled"), count(&said, "cannot be noted")), (1, 1), "{said}");
        fs::remove_dir(obstacle).unwrap();
        drop(keeper.spool.write_to(spool));
        drop(keeper.kept.as_mut().unwrap().write_to(topics));
        let said = logged(|| (5..8).for_each(|n| turn(&mut keeper, n)));
        assert_eq!((count(&said, "spool can be written again"), count(&said, "noted again")), (1, 1), "{said}");
        drop(keeper);
        let (_, outbox, pending) = Keeper::open(dir.path(), 10).unwrap();
        assert_eq!((outbox.waiting(), pending.topics().map(BTreeSet::len)), (8, Some(8)));
    }
}
