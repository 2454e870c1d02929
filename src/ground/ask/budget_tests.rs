use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

fn id(i: usize) -> QueryId {
    QueryId::new(&format!("q{i}")).unwrap()
}

fn camera() -> &'static CameraId {
    static GATE: LazyLock<CameraId> = LazyLock::new(|| CameraId::new("gate").unwrap());
    &GATE
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A budget after two seconds of work without a break.
fn busy(share: f32, start: Instant) -> (Budget, Instant) {
    let mut budget = Budget::new(share);
    let now = start + Duration::from_secs(3);
    budget.worked(start, now);
    assert!(budget.is_busy());
    (budget, now)
}

const PLAIN: Worth = Worth { priority: 0, deadline: None, budget: None };

#[test]
fn the_load_is_that_of_the_last_second_or_so() {
    let (mut budget, start) = (Budget::new(0.5), Instant::now());
    for i in 0..100 {
        budget.worked(start + ms(i * 100), start + ms(i * 100 + 60));
    }
    assert!(!budget.is_busy() && (budget.load - 0.6).abs() < 0.05, "{}", budget.load);
    for i in 100..150 {
        budget.worked(start + ms(i * 100), start + ms(i * 100 + 98));
    }
    assert!(budget.is_busy(), "{}", budget.load);
    budget.worked(start + ms(17_000), start + ms(17_010));
    assert!(!budget.is_busy());
}

#[test]
fn several_models_have_as_many_seconds_in_a_second() {
    let start = Instant::now();
    let at = |model: u64, i: u64| start + ms(i * 100 + model * 50);
    // One of two at work all the time, and both, one in the middle of what the other does.
    for (models, busy) in [(1, false), (2, true)] {
        let mut budget = Budget::new(0.1);
        budget.another();
        for i in 0..50 {
            (0..models).for_each(|model| budget.worked(at(model, i), at(model, i + 1)));
        }
        assert!((budget.load - if busy { 1.0 } else { 0.5 }).abs() < 0.1, "{} of {models}", budget.load);
        assert_eq!(budget.is_busy(), busy);
    }
    // Both end at the same time, again and again.
    let mut budget = Budget::new(0.1);
    budget.another();
    (0..50).for_each(|i| (0..2).for_each(|_| budget.worked(at(0, i), at(0, i + 1))));
    assert!(budget.is_busy(), "{}", budget.load);
    // Nearly so.
    let mut nearly = Budget::new(0.1);
    nearly.another();
    (0..50).for_each(|i| (0..2).for_each(|n| nearly.worked(at(0, i), at(0, i + 1) + Duration::from_nanos(n * 20))));
    assert!((nearly.load - budget.load).abs() < 0.01, "{} and {}", nearly.load, budget.load);
    // A tenth of two seconds a second: eight questions of 25 ms.
    let (id, mut asked) = (id(0), 0);
    for i in 50..150 {
        let now = at(0, i);
        (0..2).for_each(|_| budget.worked(at(0, i - 1), now));
        let items = [Item {
            query: &id,
            worth: &PLAIN,
            class: Class::Renew,
            waited: ms(0),
            cost: ms(25),
            pass: None,
            look: None,
            camera: camera(),
            arrived: now,
        }; 3];
        asked += budget.decide(&items, now).iter().filter(|verdict| verdict.is_none()).count();
    }
    assert!((70..110).contains(&asked), "{asked} questions of 25 ms in ten seconds");
}

#[test]
fn zoom_goes_first_then_asking_again_then_low_priority() {
    let start = Instant::now();
    let ids: Vec<QueryId> = (0..5).map(id).collect();
    let high = Worth { priority: 5, ..PLAIN };
    let item = |i: usize, worth, class| Item {
        query: &ids[i],
        worth,
        class,
        waited: ms(0),
        cost: ms(50),
        pass: None,
        look: None,
        camera: camera(),
        arrived: start,
    };
    let items = [
        item(0, &high, Class::Zoom),
        item(1, &high, Class::Renew),
        item(2, &PLAIN, Class::Ask),
        item(3, &high, Class::Ask),
        item(4, &PLAIN, Class::Renew),
    ];
    let mut shed = Vec::new();
    // Room for one, two, … questions of 50 ms.
    for room in 1..=5u8 {
        let (mut budget, now) = busy(1.0, start);
        budget.decide(&[], now);
        budget.purse.as_mut().unwrap().seconds = f32::from(room) * 0.05 - 0.01;
        let verdicts = budget.decide(&items, now);
        shed.push(
            verdicts
                .iter()
                .map(|v| v.map_or('-', |r| if r == ShedReason::Busy { 'B' } else { '?' }))
                .collect::<String>(),
        );
    }
    assert_eq!(shed, ["BBB-B", "BB--B", "B---B", "B----", "-----"]);
}

#[test]
fn a_deadline_counts_what_is_asked_before_and_a_budget_refills() {
    let start = Instant::now();
    let ids = [id(0), id(1)];
    let hurried = Worth { priority: -1, deadline: Some(ms(100)), budget: None };
    let item = |i: usize, worth, arrived| Item {
        query: &ids[i],
        worth,
        class: Class::Ask,
        waited: ms(0),
        cost: ms(40),
        pass: None,
        look: None,
        camera: camera(),
        arrived,
    };
    let mut budget = Budget::new(0.5);
    let verdicts = budget.decide(&[item(0, &PLAIN, start), item(1, &hurried, start)], start + ms(30));
    assert_eq!(verdicts, [None, Some(ShedReason::Deadline)]);
    assert_eq!(budget.decide(&[item(1, &hurried, start)], start + ms(30)), [None]);

    let thrifty = Worth { priority: 0, deadline: None, budget: Some(0.1) };
    let mut asked = Vec::new();
    for i in 0..40u64 {
        let now = start + ms(i * 100);
        asked.push(budget.decide(&[item(0, &thrifty, now)], now)[0].is_none());
    }
    // A tenth of four seconds, and a tenth of one saved up before, at 40 ms each.
    let count = asked.iter().filter(|asked| **asked).count();
    assert!((12..=13).contains(&count), "{count}: {asked:?}");
    budget.decide(&[], start + Duration::from_mins(2));
    assert!(budget.queries.is_empty());
}

#[test]
fn what_would_make_a_worthier_answer_late_is_not_taken_on() {
    let start = Instant::now();
    let ids: Vec<QueryId> = (0..4).map(id).collect();
    let hurried = |priority, deadline| Worth { priority, deadline: Some(ms(deadline)), budget: None };
    let (first, second) = (hurried(2, 100), hurried(1, 300));
    let item = |i: usize, worth, cost| Item {
        query: &ids[i],
        worth,
        class: Class::Ask,
        waited: ms(0),
        cost: ms(cost),
        pass: None,
        look: None,
        camera: camera(),
        arrived: start,
    };
    // All answers leave together: whoever would keep the first from leaving in time has to wait, hurried or not.
    let items = [item(0, &PLAIN, 70), item(1, &first, 40), item(2, &second, 70), item(3, &PLAIN, 60)];
    let busy = Some(ShedReason::Busy);
    assert_eq!(Budget::new(0.5).decide(&items, start), [busy, None, busy, None]);
    // Nobody else is worth an answer that comes too late all the same.
    let items = [item(0, &PLAIN, 70), item(1, &first, 101), item(2, &second, 70)];
    assert_eq!(Budget::new(0.5).decide(&items, start), [None, Some(ShedReason::Deadline), None]);
}

/// A question that one pass answers together with others.
fn on_pass<'a>(query: &'a QueryId, worth: &'a Worth, pass: usize, arrived: Instant) -> Item<'a> {
    Item {
        query,
        worth,
        class: Class::Ask,
        waited: ms(0),
        cost: ms(60),
        pass: Some(pass),
        look: None,
        camera: camera(),
        arrived,
    }
}

#[test]
fn a_pass_takes_its_time_once_and_is_paid_for_by_those_who_share_it() {
    let start = Instant::now();
    let ids: Vec<QueryId> = (0..3).map(id).collect();
    let part = Worth { budget: Some(0.5), ..PLAIN };
    let mut budget = Budget::new(0.5);
    let two_and_one = [(0, 0), (1, 0), (2, 1)].map(|(i, pass): (usize, usize)| on_pass(&ids[i], &part, pass, start));
    assert_eq!(budget.decide(&two_and_one, start), [None; 3]);
    let left: Vec<f32> = ids.iter().map(|id| budget.queries[id].seconds).collect();
    assert!(left.iter().zip([0.47, 0.47, 0.44]).all(|(left, wanted)| (left - wanted).abs() < 1e-4), "{left:?}");
    // Who has nothing left does not pay, nor is asked.
    budget.queries.get_mut(&ids[1]).unwrap().seconds = -1.0;
    assert_eq!(budget.decide(&two_and_one, start), [None, Some(ShedReason::Budget), None]);
    assert!((budget.queries[&ids[0]].seconds - 0.41).abs() < 1e-4);
}

#[test]
fn a_pass_is_left_undone_for_its_own_lateness_but_never_for_a_busy_device() {
    let start = Instant::now();
    let ids: Vec<QueryId> = (0..3).map(id).collect();
    let hurried = Worth { priority: 9, deadline: Some(ms(100)), budget: None };
    let alone = on_pass(&ids[0], &hurried, 0, start);
    let (beside, elsewhere) = (on_pass(&ids[1], &PLAIN, 0, start), on_pass(&ids[2], &PLAIN, 1, start));
    let mut budget = Budget::new(0.5);
    assert_eq!(budget.decide(&[alone], start), [None]);
    assert_eq!(budget.decide(&[alone, beside], start), [None, None]);
    // The other picture is looked at whatever this query is worth, and both answers leave after 120 ms.
    let late = Some(ShedReason::Deadline);
    assert_eq!(budget.decide(&[alone, elsewhere], start), [late, None]);
    assert_eq!(budget.decide(&[alone, beside, elsewhere], start), [late, None, None]);
    let (mut budget, now) = busy(0.5, start);
    budget.decide(&[], now);
    budget.purse.as_mut().unwrap().seconds = -1.0;
    assert_eq!(budget.decide(&[on_pass(&ids[1], &PLAIN, 0, now)], now), [None]);
}

#[derive(Debug, Clone)]
struct Ask {
    query: usize,
    class: Class,
    cost: u64,
    age: u64,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let class = prop::sample::select(vec![Class::Ask, Class::Renew, Class::Zoom]);
    let ask = (0usize..6, class, 1u64..60, 0u64..300);
    proptest::collection::vec(ask.prop_map(|(query, class, cost, age)| Ask { query, class, cost, age }), 0..12)
}

fn worths() -> impl Strategy<Value = Vec<Worth>> {
    let worth = (-3i32..4, prop::option::weighted(0.3, 1u64..400), prop::option::weighted(0.3, 0.01f32..0.5));
    proptest::collection::vec(
        worth.prop_map(|(priority, deadline, budget)| Worth { priority, deadline: deadline.map(ms), budget }),
        6,
    )
}

proptest! {
    #[test]
    fn an_idle_device_leaves_nothing_undone_that_nobody_limited(asks in asks(), gap in 1u64..1000) {
        let (mut budget, start) = (Budget::new(0.1), Instant::now());
        let ids: Vec<QueryId> = (0..6).map(id).collect();
        for round in 0..5 {
            let now = start + ms(round * gap);
            let items: Vec<Item<'_>> = asks.iter().map(|a| Item {
                query: &ids[a.query], worth: &PLAIN, class: a.class, waited: ms(a.age), cost: ms(a.cost), pass: None,
                look: None, camera: camera(), arrived: now,
            }).collect();
            prop_assert!(budget.decide(&items, now).iter().all(Option::is_none));
        }
    }

    #[test]
    fn what_is_shed_for_want_of_time_is_worth_no_more_than_what_is_asked_and_time_is_kept(
        rounds in proptest::collection::vec((asks(), 1u64..200), 1..30), worths in worths(), share in 0.05f32..1.0,
    ) {
        let start = Instant::now();
        let (mut budget, first) = busy(share, start);
        let ids: Vec<QueryId> = (0..6).map(id).collect();
        let (mut now, mut spent, mut own) = (first, Duration::ZERO, [Duration::ZERO; 6]);
        for (asks, gap) in rounds {
            now += ms(gap);
            budget.worked(now.checked_sub(ms(gap)).unwrap(), now);
            prop_assert!(budget.is_busy());
            let items: Vec<Item<'_>> = asks.iter().map(|a| Item {
                query: &ids[a.query], worth: &worths[a.query], class: a.class, waited: ms(a.age), cost: ms(a.cost),
                pass: None, look: None, camera: camera(), arrived: now.checked_sub(ms(a.age)).unwrap(),
            }).collect();
            let patient = budget.yielding.iter().filter(|(_, (since, _))| now - *since >= TURN);
            let turns: Vec<QueryId> = patient.map(|((_, query), _)| query.clone()).collect();
            let verdicts = budget.decide(&items, now);
            let worth = |item: &Item<'_>| (std::cmp::Reverse(item.class), item.worth.priority, item.waited);
            let round: Duration =
                items.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(item, _)| item.cost).sum();
            for (item, verdict) in items.iter().zip(&verdicts) {
                match verdict {
                    None => {
                        spent += item.cost;
                        own[ids.iter().position(|i| i == item.query).unwrap()] += item.cost;
                        if let Some(deadline) = item.worth.deadline {
                            prop_assert!(now - item.arrived + round <= deadline);
                        }
                    }
                    Some(ShedReason::Busy) => {
                        // Nothing worth less went ahead, unless it had its turn or this would have made an answer late.
                        let asked = || items.iter().zip(&verdicts).filter(|(_, v)| v.is_none()).map(|(other, _)| other);
                        let late = asked().any(|other| other.left(now).is_some_and(|left| left < round + item.cost));
                        let ahead = |other: &Item<'_>| worth(other) >= worth(item) || turns.contains(other.query);
                        prop_assert!(late || asked().all(ahead), "{item:?} {items:?}");
                    }
                    Some(ShedReason::Budget) => prop_assert!(item.worth.budget.is_some()),
                    Some(ShedReason::Deadline) => prop_assert!(item.worth.deadline.is_some()),
                    Some(ShedReason::Waiting) => prop_assert!(false, "waiting is not the budget's to say"),
                }
            }
            let passed = (now - first).as_secs_f32();
            let most = share * (passed + SAVED.as_secs_f32()) + 0.06;
            prop_assert!(spent.as_secs_f32() <= most + 1e-3, "{spent:?} of {most} s");
            for (own, worth) in own.iter().zip(&worths) {
                if let Some(part) = worth.budget {
                    prop_assert!(own.as_secs_f32() <= part * (passed + 1.0) + 0.06 + 1e-3);
                }
            }
        }
    }

    #[test]
    fn whatever_shares_a_pass_no_answer_that_is_taken_on_is_late(
        asks in asks(), passes in proptest::collection::vec(prop::option::of(0usize..3), 12), worths in worths(),
        is_busy in any::<bool>(),
    ) {
        let start = Instant::now();
        let (mut budget, now) = busy(0.5, start);
        if !is_busy {
            budget = Budget::new(0.5);
        }
        let ids: Vec<QueryId> = (0..6).map(id).collect();
        let items: Vec<Item<'_>> = asks.iter().zip(&passes).map(|(a, pass)| Item {
            query: &ids[a.query], worth: &worths[a.query], class: a.class, waited: ms(a.age),
            cost: pass.map_or(ms(a.cost), |pass| ms([20, 40, 60][pass])), pass: *pass,
            look: None, camera: camera(), arrived: now.checked_sub(ms(a.age)).unwrap(),
        }).collect();
        let verdicts = budget.decide(&items, now);
        let asked = || items.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(item, _)| item);
        let single: Duration = asked().filter(|item| item.pass.is_none()).map(|item| item.cost).sum();
        let shared: BTreeMap<usize, Duration> =
            asked().filter_map(|item| Some((item.pass?, item.cost))).collect();
        let time = single + shared.values().sum::<Duration>();
        for item in asked() {
            prop_assert!(item.left(now).is_some_and(|left| time <= left), "{item:?} takes {time:?}");
        }
        for (item, verdict) in items.iter().zip(&verdicts) {
            match verdict {
                Some(ShedReason::Deadline) => prop_assert!(item.worth.deadline.is_some()),
                Some(ShedReason::Budget) => prop_assert!(item.worth.budget.is_some()),
                Some(_) => prop_assert!(!item.is_look()),
                None => {}
            }
        }
    }
}

#[test]
fn who_makes_room_for_a_hurried_query_has_its_turn_once_a_second() {
    let (mut budget, start, ids) = (Budget::new(0.5), Instant::now(), [id(0), id(1)]);
    let hurried = Worth { priority: 1, deadline: Some(ms(100)), ..PLAIN };
    let (mut asked, mut late) = ([0; 2], 0);
    for frame in 0..50 {
        let now = start + ms(frame * 200);
        let item = |i: usize, worth| Item {
            query: &ids[i],
            worth,
            class: Class::Ask,
            waited: ms(200),
            cost: ms(60),
            pass: None,
            look: None,
            camera: camera(),
            arrived: now,
        };
        for (i, verdict) in budget.decide(&[item(0, &hurried), item(1, &PLAIN)], now).into_iter().enumerate() {
            asked[i] += u32::from(verdict.is_none());
            late += u32::from(verdict == Some(ShedReason::Deadline));
        }
    }
    assert_eq!((asked, late), ([42, 8], 8), "in ten seconds");
}

#[test]
fn of_a_model_that_keeps_no_looks_each_picture_is_looked_at_by_one_question() {
    let (mut budget, now) = busy(0.5, Instant::now());
    let (ids, cameras) = ([id(0), id(1)], ["gate", "yard"].map(|name| CameraId::new(name).unwrap()));
    let item = |picture: usize, i: usize, waited| Item {
        query: &ids[i],
        camera: &cameras[picture],
        worth: &PLAIN,
        class: Class::Ask,
        waited: ms(waited),
        cost: ms(5000),
        pass: None,
        look: Some(picture),
        arrived: now,
    };
    budget.decide(&[], now);
    budget.purse.as_mut().unwrap().seconds = -1.0;
    let items = [item(0, 0, 10), item(0, 1, 20), item(1, 0, 40), item(1, 1, 30)];
    let busy = Some(ShedReason::Busy);
    assert_eq!(budget.decide(&items, now), [busy, None, None, busy]);
    // That costs the others nothing: there is time for questions again as soon as there would be without it.
    let now = now + Duration::from_secs(3);
    budget.worked(now.checked_sub(Duration::from_secs(3)).unwrap(), now);
    assert_eq!(budget.decide(&items, now), [busy, None, None, None]);
}

#[test]
fn who_makes_room_on_one_camera_has_its_turn_there() {
    let (mut budget, start) = (Budget::new(0.5), Instant::now());
    let (asking, hurried) = (id(0), id(1));
    let (cameras, hurry) = (["gate", "yard"].map(|name| CameraId::new(name).unwrap()), Some(ms(100)));
    let hurry = Worth { priority: 1, deadline: hurry, ..PLAIN };
    let mut asked = [0; 2];
    for frame in 0..20 {
        let now = start + ms(frame * 200);
        let item = |camera, query, worth, class| Item {
            query,
            camera,
            worth,
            class,
            waited: ms(200),
            cost: ms(40),
            pass: None,
            look: None,
            arrived: now,
        };
        let items = [
            item(&cameras[0], &asking, &PLAIN, Class::Ask),
            item(&cameras[1], &asking, &PLAIN, Class::Renew),
            item(&cameras[0], &hurried, &hurry, Class::Ask),
        ];
        for (asked, verdict) in asked.iter_mut().zip(budget.decide(&items, now)) {
            *asked += u32::from(verdict.is_none());
        }
    }
    assert!(asked[1] >= 2, "{asked:?}");
}

#[path = "purse_tests.rs"]
mod purse;
