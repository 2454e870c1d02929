//! One target: the views of best promise first, until one answers ("type 1", `zoom_eye_search_type1` in `zoom_eye`).
//!
//! A queue holds the nodes to look at. The first is taken; if the model can answer from it, it is the answer. Otherwise
//! its parts join the queue, which is then sorted by rank, equals in the order they came. After some looks without an
//! answer less certainty has to do: the threshold falls, and the best of what was seen by then may reach it.

use std::sync::Arc;

use super::{Kind, Question, Rules, View, sound, tree::Tree};

/// What to look for, and how insistently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The thing, as in `red car`.
    pub cue: Arc<str>,
    /// What should be answerable from the view.
    pub question: Arc<str>,
    /// Goes on until a smallest area was looked at, even past a view that answers.
    pub to_the_bottom: bool,
    /// The whole picture is not asked whether it answers.
    pub skip_whole: bool,
}

/// What was said of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    existence: Option<f64>,
    latent: Option<f64>,
    answering: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next node is to be taken.
    Take,
    /// This node is to be judged.
    Judge(usize),
    /// The queue is to be sorted.
    Sort,
    Over,
}

/// A search under way.
#[derive(Debug, Clone)]
pub struct Seek {
    goal: Goal,
    /// How deep it may go.
    depth: usize,
    said: Vec<Said>,
    queue: Vec<usize>,
    taken: Vec<usize>,
    candidates: Vec<usize>,
    upper: f64,
    falls: usize,
    /// Looks after which the threshold falls next.
    limit: usize,
    been_at_the_bottom: bool,
    state: State,
}

impl Seek {
    /// A search that has not begun.
    pub fn new(tree: &Tree, rules: &Rules, goal: Goal) -> Self {
        let depth = tree.depth();
        Self {
            goal,
            depth,
            said: vec![Said::default(); tree.count()],
            queue: vec![Tree::ROOT],
            taken: Vec::new(),
            candidates: Vec::new(),
            upper: rules.upper,
            falls: 0,
            limit: rules.patience * depth,
            been_at_the_bottom: false,
            state: State::Take,
        }
    }

    /// The nodes taken from the queue so far, in order.
    pub fn taken(&self) -> &[usize] {
        &self.taken
    }

    /// What was found, best first: the deepest node that answers. Empty if there is none, or not yet.
    pub fn found(&self, tree: &Tree) -> Option<usize> {
        // Of equals the first, which is why this is not `max_by_key`.
        let deepest = self.candidates.iter().map(|at| tree.node(*at).depth).max()?;
        self.candidates.iter().copied().find(|at| tree.node(*at).depth == deepest)
    }

    /// What must be known to go on. Nothing means that the search is over.
    pub fn pending(&mut self, tree: &Tree, rules: &Rules) -> Vec<Question> {
        loop {
            self.state = match self.state {
                State::Over => return Vec::new(),
                State::Take if self.queue.is_empty() => State::Over,
                State::Take => {
                    let at = self.queue.remove(0);
                    self.taken.push(at);
                    State::Judge(at)
                }
                State::Judge(at) if self.said[at].answering.is_none() && !self.is_skipped(at) => {
                    return vec![question(tree, at, Kind::Answering, &self.goal.question)];
                }
                State::Judge(at) => self.judged(tree, rules, at),
                State::Sort => {
                    let unknown = self.unranked(tree);
                    if !unknown.is_empty() {
                        return unknown;
                    }
                    let ranks: Vec<_> = self.queue.iter().map(|at| (self.rank(tree, rules, *at), *at)).collect();
                    self.queue = sorted(ranks);
                    State::Take
                }
            };
        }
    }

    /// Takes an answer to one of its questions.
    pub fn tell(&mut self, question: &Question, value: f64) {
        let Some(said) = self.said.get_mut(question.node) else { return };
        let value = Some(sound(value));
        match question.kind {
            Kind::Existence => said.existence = value,
            Kind::Latent => said.latent = value,
            Kind::Answering => said.answering = value,
        }
    }

    fn is_skipped(&self, at: usize) -> bool {
        at == Tree::ROOT && self.goal.skip_whole
    }

    fn answering(&self, at: usize) -> f64 {
        self.said[at].answering.unwrap_or(-1.0)
    }

    /// A node was looked at: is the search over, and what comes next?
    fn judged(&mut self, tree: &Tree, rules: &Rules, at: usize) -> State {
        if !self.is_skipped(at) && self.answering(at) >= self.upper {
            self.candidates.push(at);
            if !self.goal.to_the_bottom || self.been_at_the_bottom {
                return State::Over;
            }
        } else if self.taken.len() >= self.limit && self.lowered(rules) {
            return State::Over;
        }
        let node = tree.node(at);
        if node.children.is_empty() || node.depth == self.depth {
            self.been_at_the_bottom = true;
            if self.goal.to_the_bottom && !self.candidates.is_empty() {
                return State::Over;
            }
        } else {
            self.queue.extend(node.children.clone());
        }
        State::Sort
    }

    /// Less certainty has to do. Whether that ends the search: with the best of what was seen, or with nothing.
    fn lowered(&mut self, rules: &Rules) -> bool {
        self.upper -= rules.step(self.falls);
        self.falls += 1;
        self.limit += rules.interval;
        for at in &self.taken {
            if self.answering(*at) >= self.upper && !self.candidates.contains(at) {
                self.candidates.push(*at);
            }
        }
        let said = &self.said;
        let value = |at: usize| said[at].answering.unwrap_or(-1.0);
        self.candidates.sort_by(|a, b| value(*b).total_cmp(&value(*a)));
        self.candidates.truncate(1);
        !self.candidates.is_empty() || self.upper < rules.lower
    }

    fn unranked(&self, tree: &Tree) -> Vec<Question> {
        let mut unknown = Vec::new();
        for at in &self.queue {
            let Said { existence, latent, .. } = self.said[*at];
            for (kind, known) in [(Kind::Existence, existence), (Kind::Latent, latent)] {
                if known.is_none() {
                    unknown.push(question(tree, *at, kind, &self.goal.cue));
                }
            }
        }
        unknown
    }

    fn rank(&self, tree: &Tree, rules: &Rules, at: usize) -> f64 {
        let Said { existence, latent, .. } = self.said[at];
        let (existence, latent) = (existence.unwrap_or(-1.0), latent.unwrap_or(-1.0));
        // Zero has one sign here, so that equals stay in the order they came.
        rules.rank(existence, latent, tree.node(at).depth, self.depth) + 0.0
    }
}

/// The nodes by falling rank, equals in the order they came.
fn sorted(mut ranks: Vec<(f64, usize)>) -> Vec<usize> {
    ranks.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranks.into_iter().map(|(_, at)| at).collect()
}

/// A question about a node.
pub(super) fn question(tree: &Tree, at: usize, kind: Kind, about: &Arc<str>) -> Question {
    let node = tree.node(at);
    let view = View { area: node.area, depth: node.depth, glance: false };
    Question { node: at, view, kind, about: Arc::clone(about) }
}
