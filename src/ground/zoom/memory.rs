//! What a search keeps from one frame to the next, for every camera and query.
//!
//! A search that its budget ended goes on with the next frame, so that a picture is looked through in time however small
//! the budget; what was found is looked at first of all the next time. Both are kept for as long as they are used now and
//! then, however long the whole search takes: what it finds is located in the picture of the answer. That nothing is there
//! rests on pictures that are gone, so a search that began too long ago does not say it.
//!
//! Times are when the pixels came. Bounded: the camera and query not asked for longest makes room.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{Plan, evidence::Evidence};
use crate::types::{BBox, CameraId, Query, QueryId, Size};

/// Cameras times queries that are kept in mind.
const MOST: usize = 512;

/// Places where one query is looked for first.
pub const MOST_SEEDS: usize = 64;

/// A place that was not looked at on so many frames says nothing of the next.
const MOST_MISSED: u8 = 8;

/// A search that was not gone on with for this long is dropped, and seeds that were not renewed. Both alike: a search does
/// not look again where it found something, its seeds do.
const LASTS: Duration = Duration::from_mins(1);

/// A place that was looked at in vain is left to the search for this long, whatever else says that something is there.
const RESTS: Duration = Duration::from_secs(1);

/// Of a search that began longer ago than this the first looks say nothing any more.
const TELLS: Duration = Duration::from_secs(30);

/// What a camera looks at: [`Frame::origin`](crate::types::Frame::origin), and the size of its pictures.
pub type Scene = (u64, Size);

/// A place to look first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seed {
    /// Where the thing was, in source pixels.
    pub bbox: BBox,
    /// The crop it was found in, if it was found in one.
    pub crop: Option<BBox>,
    /// Frames on which there was no time to look.
    pub missed: u8,
    /// What was said of it so far.
    pub evidence: Evidence,
}

impl Seed {
    /// A place of which nothing else is known.
    pub fn at(bbox: BBox) -> Self {
        Self { bbox, crop: None, missed: 0, evidence: Evidence::default() }
    }

    /// The same after another frame without a look; `None` once it is no use any more.
    pub fn missed(self) -> Option<Self> {
        (self.missed < MOST_MISSED).then_some(Self { missed: self.missed + 1, ..self })
    }
}

/// A search under way.
#[derive(Debug)]
pub struct Search {
    /// What is known so far, and what comes next.
    pub plan: Plan,
    began: Instant,
    pursued: Instant,
}

/// What is kept for one camera and query.
#[derive(Debug)]
pub struct Trail {
    search: Option<Search>,
    /// What the query is about, once the model was asked.
    pub cues: Option<Vec<String>>,
    /// Where the query was found last: looked at before anything else.
    seeds: Vec<Seed>,
    /// Quarters of a pass that looking for what is not known is owed.
    owed: usize,
    /// Where it was looked for of late, and was not; with when.
    vain: Vec<(BBox, Instant)>,
    rev: u32,
    scene: Scene,
    seeded: Instant,
    used: u64,
}

impl Trail {
    fn new(rev: u32, scene: Scene, now: Instant) -> Self {
        Self {
            search: None,
            cues: None,
            seeds: Vec::new(),
            owed: 0,
            vain: Vec::new(),
            rev,
            scene,
            seeded: now,
            used: 0,
        }
    }

    /// Where to look first, at `now`.
    pub fn seeds(&self, now: Instant) -> Vec<Seed> {
        let passed = now.saturating_duration_since(self.seeded);
        self.seeds.iter().map(|seed| Seed { evidence: seed.evidence.after(passed), ..*seed }).collect()
    }

    /// Puts `seeds` in the place of those there were, the first [`MOST_SEEDS`] of them that lie in the picture.
    pub fn seed(&mut self, seeds: impl IntoIterator<Item = Seed>, now: Instant) {
        let (_, picture) = self.scene;
        let inside = |seed: Seed| Some(Seed { bbox: seed.bbox.clipped(picture)?, ..seed });
        self.seeds = seeds.into_iter().filter_map(inside).take(MOST_SEEDS).collect();
        self.seeded = now;
    }

    /// Remembers where a look found nothing.
    pub fn was_vain(&mut self, places: impl IntoIterator<Item = BBox>, now: Instant) {
        self.vain.retain(|(_, at)| now.saturating_duration_since(*at) < RESTS);
        self.vain.extend(places.into_iter().map(|bbox| (bbox, now)).take(MOST_SEEDS));
    }

    /// Places where nothing was found a moment ago.
    pub fn vain(&self, now: Instant) -> impl Iterator<Item = &BBox> {
        self.vain.iter().filter(move |(_, at)| now.saturating_duration_since(*at) < RESTS).map(|(bbox, _)| bbox)
    }

    /// Of so many passes those that look for what is not known to be anywhere: a quarter, of less than four that of several
    /// pictures together.
    pub fn to_explore(&mut self, passes: usize) -> usize {
        if passes >= 4 {
            return passes / 4;
        }
        let owed = self.owed + passes;
        self.owed = owed % 4;
        owed / 4
    }

    /// The search under way, or the one that `begin` makes; to be pursued, and laid down again.
    pub fn take_up(&mut self, now: Instant, begin: impl FnOnce() -> Plan) -> Search {
        self.search.take().unwrap_or_else(|| Search { plan: begin(), began: now, pursued: now })
    }

    /// Keeps a search for the next time unless it is `over`. Whether what it has not found is not there: it is over, and
    /// did not take too long for that.
    pub fn lay_down(&mut self, search: Search, over: bool, now: Instant) -> bool {
        let tells = now.saturating_duration_since(search.began) <= TELLS;
        if !over {
            self.search = Some(Search { pursued: now, ..search });
        }
        over && tells
    }

    /// Drops the search under way: the question is answered.
    pub fn give_up(&mut self) {
        self.search = None;
    }

    fn age(&mut self, now: Instant) {
        self.search.take_if(|search| now.saturating_duration_since(search.pursued) > LASTS);
        if now.saturating_duration_since(self.seeded) > LASTS {
            self.seeds.clear();
        }
    }
}

/// The trails of all cameras and queries.
#[derive(Debug, Default)]
pub struct Memory {
    trails: HashMap<(CameraId, QueryId), Trail>,
    /// Counts look-ups: how long ago is a difference of two of them.
    count: u64,
    /// How long a pass took the last time.
    pub pace: Option<Duration>,
}

impl Memory {
    /// The trail of a query on a camera. What was kept for another revision of the query, of another scene, or for too long, is
    /// forgotten.
    pub fn trail(&mut self, camera: &CameraId, query: &Query, scene: Scene, now: Instant) -> &mut Trail {
        self.count += 1;
        let key = (camera.clone(), query.id.clone());
        if !self.trails.contains_key(&key) && self.trails.len() >= MOST {
            self.forget_oldest();
        }
        let trail = self.trails.entry(key).or_insert_with(|| Trail::new(query.rev, scene, now));
        if trail.rev != query.rev || trail.scene != scene {
            *trail = Trail::new(query.rev, scene, now);
        }
        trail.age(now);
        trail.used = self.count;
        trail
    }

    /// What is kept for some cameras, to be used elsewhere and given back.
    #[must_use]
    pub fn lend(&mut self, cameras: &[&CameraId]) -> Self {
        let trails = self.trails.extract_if(|(camera, _), _| cameras.contains(&camera)).collect();
        Self { trails, count: self.count, pace: self.pace }
    }

    /// Takes back what was lent.
    pub fn take_back(&mut self, lent: Self) {
        self.trails.extend(lent.trails);
        self.count = self.count.max(lent.count);
        self.pace = lent.pace.or(self.pace);
        while self.trails.len() > MOST {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.trails.iter().min_by_key(|(_, trail)| trail.used).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.trails.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ground::zoom::{Rules, Split, Tree},
        types::Method,
    };

    const PICTURE: Size = Size { width: 100, height: 50 };
    const SCENE: Scene = (7, PICTURE);

    fn query(id: usize, rev: u32) -> Query {
        let id = QueryId::new(&format!("q{id}")).unwrap();
        Query {
            id,
            rev,
            text: "car".into(),
            cameras: None,
            method: Method::Zoom,
            threshold: None,
            worth: crate::types::Worth::default(),
        }
    }

    fn camera() -> CameraId {
        CameraId::new("gate").unwrap()
    }

    fn at(x: f32) -> Seed {
        Seed::at(BBox::new(x, 0.0, x + 10.0, 10.0).unwrap())
    }

    #[test]
    fn seeds_are_few_inside_the_picture_and_forgotten_with_what_they_were_for() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let trail = memory.trail(&camera(), &query(0, 1), SCENE, now);
        trail.seed((0..200u8).map(|i| at(f32::from(i) / 2.0)), now);
        assert_eq!(trail.seeds(now).len(), MOST_SEEDS);
        trail.seed([at(95.0), at(100.0)], now);
        assert_eq!(trail.seeds(now), [Seed::at(BBox::new(95.0, 0.0, 100.0, 10.0).unwrap())]);
        let seeds =
            |memory: &mut Memory, rev, scene, at| memory.trail(&camera(), &query(0, rev), scene, at).seeds(at).len();
        assert_eq!(seeds(&mut memory, 1, SCENE, now + LASTS), 1);
        assert_eq!(seeds(&mut memory, 1, SCENE, now + LASTS + Duration::from_millis(1)), 0);
        for (rev, scene) in [(2, SCENE), (1, (7, Size::new(50, 50))), (1, (8, PICTURE))] {
            let mut memory = Memory::default();
            memory.trail(&camera(), &query(0, 1), SCENE, now).seed([at(0.0)], now);
            assert_eq!(seeds(&mut memory, rev, scene, now), 0);
        }
    }

    #[test]
    fn a_search_is_kept_while_it_is_gone_on_with_and_says_what_is_absent_only_if_it_was_not_long() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        // Whether the search is a new one, and whether it would tell if it were over by now.
        let mut goes_on = |now: Instant| {
            let trail = memory.trail(&camera(), &query(0, 1), SCENE, now);
            let mut is_new = false;
            let search = trail.take_up(now, || {
                is_new = true;
                Plan::all(Tree::of(PICTURE, 50, Split::Four), Rules::llava_local(50), "car")
            });
            let tells = trail.lay_down(Search { plan: search.plan.clone(), ..search }, true, now);
            assert!(!trail.lay_down(search, false, now), "it is not over");
            (is_new, tells)
        };
        assert_eq!(goes_on(start), (true, true));
        assert_eq!(goes_on(start + TELLS), (false, true));
        assert_eq!(goes_on(start + TELLS + LASTS), (false, false), "it lasts, but its first looks are too old");
        assert_eq!(goes_on(start + TELLS + LASTS * 2), (false, false), "it lasts as long as it is pursued");
        let later = start + TELLS + LASTS * 3 + Duration::from_millis(1);
        assert_eq!(goes_on(later), (true, true), "nobody went on with it");
    }

    #[test]
    fn a_quarter_of_the_passes_explores_however_few_there_are() {
        let mut memory = Memory::default();
        let trail = memory.trail(&camera(), &query(0, 1), SCENE, Instant::now());
        for (passes, explored) in [(1, [0, 0, 0, 1]), (2, [0, 1, 0, 1]), (3, [0, 1, 1, 1]), (4, [1; 4]), (7, [1; 4])] {
            assert_eq!([(); 4].map(|()| trail.to_explore(passes)), explored);
        }
        assert_eq!(trail.to_explore(usize::MAX), usize::MAX / 4);
    }

    #[test]
    fn the_trail_not_followed_longest_makes_room() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        for i in 0..=MOST {
            memory.trail(&camera(), &query(i, 1), SCENE, now).seed([at(0.0)], now);
            // The first is followed all the time.
            assert_eq!(memory.trail(&camera(), &query(0, 1), SCENE, now).seeds(now).len(), 1);
        }
        assert_eq!(memory.trails.len(), MOST);
        assert_eq!(memory.trail(&camera(), &query(2, 1), SCENE, now).seeds(now).len(), 1);
        assert_eq!(memory.trail(&camera(), &query(1, 1), SCENE, now).seeds(now).len(), 0);
    }

    #[test]
    fn what_is_kept_of_a_camera_is_where_it_was_lent_to_and_comes_back() {
        let (mut memory, now, yard) = (Memory::default(), Instant::now(), CameraId::new("yard").unwrap());
        let seeds =
            |memory: &mut Memory, camera: &CameraId| memory.trail(camera, &query(0, 1), SCENE, now).seeds(now).len();
        for camera in [camera(), yard.clone()] {
            memory.trail(&camera, &query(0, 1), SCENE, now).seed([at(0.0)], now);
        }
        let mut lent = memory.lend(&[&camera()]);
        assert_eq!((lent.trails.len(), memory.trails.len()), (1, 1));
        assert_eq!((seeds(&mut lent, &camera()), seeds(&mut memory, &yard)), (1, 1));
        lent.trail(&camera(), &query(0, 1), SCENE, now).seed([at(0.0), at(20.0)], now);
        lent.pace = Some(Duration::from_millis(7));
        memory.take_back(lent);
        assert_eq!(
            (seeds(&mut memory, &camera()), seeds(&mut memory, &yard), memory.pace),
            (2, 1, Some(Duration::from_millis(7)))
        );
        // However many were used elsewhere meanwhile, as many are kept as ever.
        let mut lent = memory.lend(&[]);
        for i in 0..=MOST {
            lent.trail(&camera(), &query(i, 1), SCENE, now);
        }
        memory.take_back(lent);
        assert_eq!(memory.trails.len(), MOST);
    }
}
