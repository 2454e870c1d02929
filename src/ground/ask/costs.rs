//! What questions took lately, by method: what they will take, as far as anybody knows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::types::Method;

/// A cost that was not measured for this long may no longer be so. Where it is the reason for not asking, nobody would
/// ever find out.
const DOUBTED: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct Costs {
    /// What one took, smoothed, and when that was measured last.
    each: BTreeMap<&'static str, (Duration, Instant)>,
}

impl Costs {
    /// `count` questions, or passes that answer several at once, took from `began` to `ended`.
    pub fn took(&mut self, method: Method, count: usize, began: Instant, ended: Instant) {
        let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) else { return };
        let each = ended.saturating_duration_since(began) / count;
        let (cost, at) = self.each.entry(method.name()).or_insert((each, ended));
        (*cost, *at) = ((*cost * 7 + each) / 8, ended);
    }

    /// What one takes; nothing if that is not known.
    pub fn of(&self, method: Method) -> Duration {
        self.each.get(method.name()).map_or(Duration::ZERO, |(cost, _)| *cost)
    }

    /// A question was left undone since it would take too long. What was not tried for a while is forgotten, so that it is
    /// tried again.
    pub fn doubt(&mut self, method: Method, now: Instant) {
        self.each.retain(|name, (_, at)| *name != method.name() || now.saturating_duration_since(*at) < DOUBTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_smoothed_and_forgotten_only_where_it_keeps_the_method_from_being_tried() {
        let (mut costs, start) = (Costs::default(), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(costs.of(Method::Detector), ms(0));
        costs.took(Method::Detector, 2, start, start + ms(200));
        costs.took(Method::Detector, 0, start, start + ms(900));
        assert_eq!(costs.of(Method::Detector), ms(100));
        costs.took(Method::Detector, 1, start + ms(200), start + ms(1100));
        assert_eq!((costs.of(Method::Detector), costs.of(Method::Coords)), (ms(200), ms(0)));
        costs.doubt(Method::Detector, start + ms(11_099));
        costs.doubt(Method::Coords, start + ms(11_100));
        assert_eq!(costs.of(Method::Detector), ms(200));
        costs.doubt(Method::Detector, start + ms(11_100));
        assert_eq!(costs.of(Method::Detector), ms(0));
        costs.took(Method::Detector, 1, start + ms(11_100), start + ms(11_130));
        assert_eq!(costs.of(Method::Detector), ms(30), "what was forgotten has no say");
    }
}
