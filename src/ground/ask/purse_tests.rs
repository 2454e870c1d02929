//! What is spent without leave, and how long that is remembered.

use super::*;

fn item<'a>(query: &'a QueryId, worth: &'a Worth, class: Class, look: Option<usize>, now: Instant) -> Item<'a> {
    let (waited, cost) = (ms(10), ms(5000));
    Item { query, camera: camera(), worth, class, waited, cost, pass: None, look, arrived: now }
}

#[test]
fn a_search_that_is_the_only_look_runs_up_no_debt_that_grows() {
    let (mut budget, mut now) = busy(0.5, Instant::now());
    let (search, other) = (id(0), id(1));
    for _ in 0..50 {
        assert_eq!(budget.decide(&[item(&search, &PLAIN, Class::Zoom, Some(0), now)], now), [None]);
        let began = now;
        now += ms(5000);
        budget.worked(began, now);
    }
    // It is gone. What it took last is made up for after ten seconds at half the time.
    for (seconds, verdict) in [(5, Some(ShedReason::Busy)), (6, None)] {
        let began = now;
        now += Duration::from_secs(seconds);
        budget.worked(began, now);
        assert_eq!(budget.decide(&[item(&other, &PLAIN, Class::Ask, None, now)], now), [verdict]);
    }
}

#[test]
fn who_has_spent_too_much_does_not_begin_anew_by_not_asking_for_a_while() {
    let (mut budget, start) = (Budget::new(0.5), Instant::now());
    let (query, worth) = (id(0), Worth { budget: Some(0.01), ..PLAIN });
    // Five seconds, of a hundredth of the time.
    let mut at = |seconds: u64| {
        let now = start + Duration::from_secs(seconds);
        budget.decide(&[], now);
        budget.decide(&[item(&query, &worth, Class::Ask, None, now)], now)[0]
    };
    assert_eq!(at(0), None);
    assert_eq!(at(61), Some(ShedReason::Budget));
    assert_eq!(at(480), Some(ShedReason::Budget));
    assert_eq!(at(520), None);
}
