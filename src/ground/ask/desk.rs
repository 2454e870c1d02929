//! Answers a batch, asking the model only what is due and what there is time for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    AskConfig,
    budget::{Budget, Class, Item},
    costs::Costs,
    look::{Offered, Reply},
    place::{Known, Place},
    regions::Proposed,
    scene::{Key, Wanted},
};
use crate::{
    ground::{
        GroundError,
        methods::{Unanswered, by_frame, regions::Bar, together::Asked},
        router::Able,
    },
    types::{CameraId, Frame, Method, Rgb, ShedReason, Status, Work},
};

/// A camera without frames for this long is forgotten.
const FORGET: Duration = Duration::from_mins(5);

/// See the module. Each model has one of its own; what they know they share.
pub(in crate::ground) struct Desk {
    config: AskConfig,
    common: Arc<Mutex<Common>>,
    /// The cameras whose pictures are answered just now.
    places: HashMap<CameraId, Place>,
    work: Arc<Work>,
    /// Where stream time 0 lies, if what is remembered ages by the stream rather than by the clock.
    stream_start: Option<Instant>,
}

/// What all models know.
struct Common {
    /// Cameras that no model has a picture of just now.
    places: HashMap<CameraId, Place>,
    budget: Budget,
    costs: Costs,
}

/// A question that is due: its number, and its query's place in the camera's scene.
struct Due {
    ask: usize,
    place: usize,
    class: Class,
}

/// What came of the questions so far, by number.
type Replies = BTreeMap<usize, Reply>;

impl Desk {
    pub(in crate::ground) fn new(config: AskConfig, stream_start: Option<Instant>, work: Arc<Work>) -> Self {
        let common = Common { places: HashMap::new(), budget: Budget::new(config.share), costs: Costs::default() };
        Self { config, common: Arc::new(Mutex::new(common)), places: HashMap::new(), work, stream_start }
    }

    /// One for another model, which works beside this one from now on. It never has a picture of a camera while this one has.
    pub(in crate::ground) fn another(&self) -> Self {
        self.common().budget.another();
        let (config, common) = (self.config.clone(), Arc::clone(&self.common));
        Self { config, common, places: HashMap::new(), work: Arc::clone(&self.work), stream_start: self.stream_start }
    }

    fn common(&self) -> MutexGuard<'_, Common> {
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of these cameras is here, until it is put back.
    fn fetch(&mut self, asks: &[Asked<'_>]) {
        let known: Vec<_> = {
            let mut common = self.common();
            asks.iter().filter_map(|asked| common.places.remove_entry(&asked.ask.frame.camera)).collect()
        };
        self.places.extend(known);
    }

    fn put_back(&mut self, began: Instant, ended: Instant) {
        let places = std::mem::take(&mut self.places);
        let mut common = self.common();
        common.places.extend(places);
        common.places.retain(|_, place| place.used_at.is_some_and(|at| began.saturating_duration_since(at) < FORGET));
        common.budget.worked(began, ended);
    }

    /// Answers all questions, in their order; those about one frame stand next to each other.
    pub(in crate::ground) fn answer(
        &mut self,
        model: &mut dyn Able,
        asks: &[Asked<'_>],
    ) -> Result<Vec<Reply>, GroundError> {
        let began = Instant::now();
        self.fetch(asks);
        let mut replies = Replies::new();
        let done = rounds(asks).iter().try_for_each(|round| self.round(model, asks, round, &mut replies));
        self.put_back(began, Instant::now());
        done?;
        let unknown = || self.reply(Known::default(), false, Some(ShedReason::Waiting));
        Ok((0..asks.len()).map(|i| replies.remove(&i).unwrap_or_else(unknown)).collect())
    }

    /// The same for some of them, about at most one frame a camera.
    fn round(
        &mut self,
        model: &mut dyn Able,
        asks: &[Asked<'_>],
        round: &[usize],
        replies: &mut Replies,
    ) -> Result<(), GroundError> {
        self.look(model, asks, round, replies)?;
        let open: Vec<usize> = round.iter().copied().filter(|i| !replies.contains_key(i)).collect();
        let bar = model.offering().map(|offering| offering.bar());
        let (due, outdated) = self.due(bar, asks, &open);
        let verdicts = self.verdicts(model, bar.is_some(), asks, &due);
        let (mut shed, mut go) = (BTreeMap::new(), Vec::new());
        for (due, verdict) in due.into_iter().zip(verdicts) {
            match verdict {
                None => go.push(due),
                Some(reason) => {
                    if let Some(place) = self.places.get_mut(&asks[due.ask].ask.frame.camera) {
                        place.scene.held(due.place).shed();
                    }
                    shed.insert(due.ask, reason);
                }
            }
        }
        if bar.is_none() {
            let going: BTreeSet<usize> = go.iter().map(|due| due.ask).collect();
            self.count_looks(by_frame(round, |i| asks[*i].ask.frame), &going, &shed);
        }
        let scores = self.select(model, asks, &go)?;
        let told = self.tell(model, asks, &go)?;
        for i in open {
            let asked = scores.contains_key(&i) || told.contains_key(&i);
            let reply = match told.get(&i) {
                Some(Err(Unanswered::Refused(reason))) => {
                    self.work.answer(true);
                    Reply::fresh(Err(reason.clone().into()))
                }
                Some(Err(Unanswered::Unfinished)) => {
                    self.reply(Known { looked: true, ..Known::default() }, true, Some(ShedReason::Budget))
                }
                Some(Ok(())) | None => {
                    let place = self.places.get_mut(&asks[i].ask.frame.camera);
                    let known = place.and_then(|place| place.known(&asks[i], bar, scores.get(&i)));
                    let mut known = known.unwrap_or_default();
                    known.all &= !outdated.contains(&i);
                    // Matches are news whatever else there may be; that there are none is not, before all was asked.
                    let searches = asks[i].method == Method::Zoom;
                    let waits = if searches { ShedReason::Budget } else { ShedReason::Waiting };
                    let waiting = (!known.all && known.hits.is_empty()).then_some(waits);
                    self.reply(known, asked, shed.get(&i).copied().or(waiting))
                }
            };
            replies.insert(i, reply);
        }
        Ok(())
    }

    /// Counts pictures whose looks are questions. One that was to be looked at, and was not for want of time, says so itself.
    fn count_looks<'a>(
        &self,
        frames: impl Iterator<Item = &'a [usize]>,
        going: &BTreeSet<usize>,
        shed: &BTreeMap<usize, ShedReason>,
    ) {
        for of_frame in frames {
            let asked = of_frame.iter().any(|i| going.contains(i));
            if asked || !of_frame.iter().any(|i| shed.contains_key(i)) {
                self.work.look(asked);
            }
        }
    }

    /// A reply, entered in the account.
    fn reply(&self, known: Known, asked: bool, shed: Option<ShedReason>) -> Reply {
        let Known { hits, all, looked } = known;
        let status = match shed {
            Some(reason) => Status::Shed(reason.to_string()),
            None => Status::Ok,
        };
        shed.map_or_else(|| self.work.answer(asked), |reason| self.work.leave(reason));
        Reply { status, hits, complete: all, fresh: asked && looked }
    }

    /// Looks at the frames that need it. Questions about a frame that the model cannot take are answered at once.
    fn look(
        &mut self,
        model: &mut dyn Able,
        asks: &[Asked<'_>],
        round: &[usize],
        replies: &mut Replies,
    ) -> Result<(), GroundError> {
        let mut frames: Vec<&Frame> = Vec::new();
        let busy = self.common().budget.is_busy();
        for of_frame in by_frame(round, |i| asks[*i].ask.frame) {
            let frame = asks[of_frame[0]].ask.frame;
            let now = self.now(frame);
            let place = self.places.entry(frame.camera.clone()).or_default();
            let key = |i: &usize| Key { id: asks[*i].ask.query.id.clone(), rev: asks[*i].ask.query.rev };
            place.meet(frame, of_frame.iter().map(key).collect(), &self.config, now);
            if let Some(offering) = model.offering() {
                if let Err(reason) = offering.fits(frame) {
                    replies.extend(of_frame.iter().map(|i| (*i, Reply::fresh(Err(reason.clone().into())))));
                    continue;
                }
                // A search cuts its crops from this very picture, so that its regions must be of this one as well.
                let closer = !busy
                    && of_frame.iter().filter(|i| asks[**i].method == Method::Zoom).any(|i| {
                        let place_of = place.scene.place(&asks[*i].ask.query.id);
                        place_of.is_some_and(|query| place.scene.held(query).is_wanted())
                    });
                if !place.looked && (closer || place.offered.is_none()) {
                    place.scene.look_all_the_same(now);
                    place.looked = true;
                }
                frames.extend(place.looked.then_some(frame));
                self.work.look(place.looked);
            } else {
                // A model that keeps no looks is asked about each picture as it comes; each question is a look.
                place.looked = true;
            }
        }
        let result = self.offer(model, &frames);
        if result.is_err() {
            for frame in frames {
                // Nothing is known of this picture: the next one must be looked at.
                self.places.entry(frame.camera.clone()).or_default().scene.overlook();
            }
        }
        result
    }

    fn offer(&mut self, model: &mut dyn Able, frames: &[&Frame]) -> Result<(), GroundError> {
        let Some(offering) = model.offering().filter(|_| !frames.is_empty()) else { return Ok(()) };
        let canvases: Vec<&Rgb> = frames.iter().map(|frame| &*frame.canvas).collect();
        let bar = offering.bar();
        for (frame, offered) in frames.iter().zip(GroundError::unless_all(offering.offer(&canvases)?, frames.len())?) {
            let now = self.now(frame);
            let place = self.places.entry(frame.camera.clone()).or_default();
            let Offered { boxes, objectness, looks, .. } = &offered;
            place.scene.observe(Proposed { boxes, objectness, looks }, bar, now);
            place.offered = Some(offered);
        }
        Ok(())
    }

    /// The questions that should be asked, as far as each camera may; and of the others those whose answer may be wrong by
    /// now. `bar` is that of a model that offers regions.
    fn due(&self, bar: Option<Bar>, asks: &[Asked<'_>], open: &[usize]) -> (Vec<Due>, BTreeSet<usize>) {
        let (mut due, mut outdated) = (Vec::new(), BTreeSet::new());
        for of_frame in by_frame(open, |i| asks[*i].ask.frame) {
            let frame = asks[of_frame[0]].ask.frame;
            let Some(Place { scene, looked, .. }) = self.places.get(&frame.camera) else { continue };
            let (now, kept) = (self.now(frame), !looked);
            let (mut by_region, mut wanted) = (BTreeMap::new(), Vec::new());
            for i in of_frame.iter().copied() {
                let Asked { method, ask } = &asks[i];
                let Some(place) = scene.place(&ask.query.id) else { continue };
                if let Some(bar) = bar.filter(|_| *method == Method::Retrieve) {
                    let threshold = ask.query.threshold.unwrap_or(bar.score);
                    wanted.push(Wanted { query: place, threshold, priority: ask.query.worth.priority });
                    by_region.insert(place, i);
                } else {
                    let zoom = *method == Method::Zoom;
                    let class = scene.due_whole(place, &self.config, now);
                    // The same look again would only be answered the same.
                    let class = class.filter(|class| !kept || (*class == Class::Ask && !zoom));
                    due.extend(class.map(|class| Due { ask: i, place, class: if zoom { Class::Zoom } else { class } }));
                }
            }
            let (first, later) = scene.due(&wanted, kept, &self.config, now);
            for one in first {
                due.extend(by_region.get(&one.query).map(|i| Due {
                    ask: *i,
                    place: one.query,
                    class: one.reason.class,
                }));
            }
            outdated.extend(later.iter().filter(|d| d.reason.changed).filter_map(|d| by_region.get(&d.query)).copied());
        }
        (due, outdated)
    }

    /// Which of the due questions there is no time for; `keeps` says whether the model keeps looks.
    fn verdicts(&self, model: &dyn Able, keeps: bool, asks: &[Asked<'_>], due: &[Due]) -> Vec<Option<ShedReason>> {
        if self.stream_start.is_some() {
            // The stream waits for the device, so there is time for everything; and what a file is found to hold must
            // not depend on how fast the machine is.
            return vec![None; due.len()];
        }
        let mut common = self.common();
        let item = |due: &Due| {
            let Asked { method, ask } = &asks[due.ask];
            let scene = self.places.get(&ask.frame.camera).map(|place| &place.scene);
            let first = || asks.iter().position(|other| std::ptr::eq(other.ask.frame, ask.frame));
            Item {
                query: &ask.query.id,
                camera: &ask.frame.camera,
                worth: &ask.query.worth,
                class: due.class,
                waited: scene.map_or(Duration::MAX, |scene| scene.waited(due.place, self.now(ask.frame))),
                cost: common.costs.of(*method),
                pass: model.at_once().then(first).flatten(),
                look: (!keeps && !model.at_once()).then(first).flatten(),
                arrived: ask.frame.arrived_at(),
            }
        };
        let items: Vec<Item<'_>> = due.iter().map(item).collect();
        let now = Instant::now();
        let verdicts = common.budget.decide(&items, now);
        for (due, verdict) in due.iter().zip(&verdicts) {
            if *verdict == Some(ShedReason::Deadline) {
                common.costs.doubt(asks[due.ask].method, now);
            }
        }
        verdicts
    }

    /// Asks about regions; returns the scores by question.
    fn select(
        &mut self,
        model: &mut dyn Able,
        asks: &[Asked<'_>],
        go: &[Due],
    ) -> Result<BTreeMap<usize, Vec<f32>>, GroundError> {
        let Some(offering) = model.offering() else { return Ok(BTreeMap::new()) };
        let (mut dues, mut pairs) = (Vec::new(), Vec::new());
        for due in go.iter().filter(|due| asks[due.ask].method == Method::Retrieve) {
            let ask = &asks[due.ask].ask;
            if let Some(offered) = self.places.get(&ask.frame.camera).and_then(|place| place.offered.as_ref()) {
                dues.push(due);
                pairs.push((offered, ask.query.text.as_str()));
            }
        }
        let began = Instant::now();
        let all = if pairs.is_empty() { Vec::new() } else { offering.select(&pairs)? };
        let all = GroundError::unless_all(all, pairs.len())?;
        self.common().costs.took(Method::Retrieve, all.len(), began, Instant::now());
        let mut scores = BTreeMap::new();
        for (due, fit) in dues.iter().zip(all) {
            let frame = asks[due.ask].ask.frame;
            let now = self.now(frame);
            if let Some(place) = self.places.get_mut(&frame.camera) {
                place.scene.answered(due.place, &fit, now);
            }
            scores.insert(due.ask, fit);
        }
        for of_frame in by_frame(&dues, |due| asks[due.ask].ask.frame) {
            if let Some(place) = self.places.get_mut(&asks[of_frame[0].ask].ask.frame.camera) {
                place.scene.learn();
            }
        }
        Ok(scores)
    }

    /// Asks the methods that know no regions; returns by question whether that went well.
    fn tell(
        &mut self,
        model: &mut dyn Able,
        asks: &[Asked<'_>],
        go: &[Due],
    ) -> Result<BTreeMap<usize, Result<(), Unanswered>>, GroundError> {
        let offers = model.offering().is_some();
        let seen =
            |ask: usize| self.places.get(&asks[ask].ask.frame.camera).is_some_and(|place| place.offered.is_some());
        let whole = |due: &&Due| !offers || (asks[due.ask].method != Method::Retrieve && seen(due.ask));
        let mut dues: Vec<&Due> = go.iter().filter(whole).collect();
        // By method, for the costs; and questions about the same frame stand next to each other.
        dues.sort_by_key(|due| (asks[due.ask].method.name(), due.ask));
        let mut outcome = BTreeMap::new();
        for of_method in dues.chunk_by(|a, b| asks[a.ask].method == asks[b.ask].method) {
            let some: Vec<Asked<'_>> = of_method.iter().map(|due| asks[due.ask]).collect();
            let began = Instant::now();
            let told = match model.offering() {
                Some(offering) => {
                    let look = |asked: &Asked<'_>| self.places.get(&asked.ask.frame.camera)?.offered.as_ref();
                    let on: Vec<_> = some.iter().filter_map(|asked| Some((look(asked)?, *asked))).collect();
                    offering.tell(&on)?
                }
                None => model.answer(&some)?,
            };
            let told = GroundError::unless_all(told, some.len())?;
            let of_one_frame = by_frame(&some, |asked| asked.ask.frame);
            let count = if model.at_once() { of_one_frame.count() } else { some.len() };
            self.common().costs.took(some[0].method, count, began, Instant::now());
            for (due, told) in of_method.iter().zip(told) {
                let frame = asks[due.ask].ask.frame;
                let now = self.now(frame);
                let Some(place) = self.places.get_mut(&frame.camera) else { continue };
                let held = place.scene.held(due.place);
                outcome
                    .insert(due.ask, told.map(|finds| held.hold(finds, now)).inspect_err(|_| held.asked_in_vain(now)));
            }
        }
        Ok(outcome)
    }

    /// When a frame's pixels came, on the clock that memories age by.
    fn now(&self, frame: &Frame) -> Instant {
        self.stream_start.map_or_else(|| frame.arrived_at(), |start| start + frame.pts)
    }
}

/// Questions in as few groups as there are frames of one camera, those about the earlier frame in the earlier group.
fn rounds(asks: &[Asked<'_>]) -> Vec<Vec<usize>> {
    let mut rounds: Vec<(Vec<&Frame>, Vec<usize>)> = Vec::new();
    for (i, asked) in asks.iter().enumerate() {
        let frame = asked.ask.frame;
        let here = rounds.iter().position(|(frames, _)| frames.iter().any(|f| std::ptr::eq(*f, frame)));
        let after = rounds.iter().rposition(|(frames, _)| frames.iter().any(|f| f.camera == frame.camera));
        let round = here.unwrap_or_else(|| after.map_or(0, |round| round + 1));
        if round == rounds.len() {
            rounds.push((Vec::new(), Vec::new()));
        }
        let (frames, numbers) = &mut rounds[round];
        if here.is_none() {
            frames.push(frame);
        }
        numbers.push(i);
    }
    rounds.into_iter().map(|(_, numbers)| numbers).collect()
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
