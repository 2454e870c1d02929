//! From words to the classes of a detector that knows no others. What it does not know is refused with what it does.

use std::collections::{BTreeMap, HashMap};

use crate::ground::manifest::Head;

/// Words that add nothing to a name.
const FILLING: [&str; 7] = ["a", "an", "the", "any", "all", "every", "some"];

/// What checkpoints call a place that stands for nothing; COCO's 91 places have several of these.
const NOTHING: [&str; 3] = ["n/a", "na", "__background__"];

/// What stands between names in a query that asks for several.
const BETWEEN: [&str; 3] = [" and ", " or ", " and/or "];

/// The classes of a detector, by every word for them.
#[derive(Debug)]
pub(super) struct Classes {
    places: HashMap<String, usize>,
    names: Vec<String>,
    model: String,
}

impl Classes {
    /// The classes of `model`; fails with what to change in the manifest.
    pub(super) fn of(head: &Head, model: &str) -> Result<Self, String> {
        let mut places = HashMap::new();
        let own = |name: &String| if is_nothing(name) { String::new() } else { name.clone() };
        let names: Vec<String> = head.classes.iter().map(own).collect();
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if plain(name).is_empty() {
                return Err(format!("head.classes: `{name}` has no letter"));
            }
            if places.insert(plain(name), at).is_some() {
                return Err(format!("head.classes: `{name}` is there twice"));
            }
        }
        if places.is_empty() {
            return Err("head.classes: should name what the model detects, in the order of its scores".to_owned());
        }
        let named: BTreeMap<_, _> = head.words.iter().collect();
        for (word, class) in named {
            let place = places.get(&plain(class)).copied();
            let place = place.ok_or_else(|| format!("head.words: `{word}` means `{class}`, which is no class"))?;
            places.entry(plain(word)).or_insert(place);
        }
        Ok(Self { places, names, model: model.to_owned() })
    }

    /// How many scores a box has.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// A class to try the model with.
    pub(super) fn example(&self) -> &str {
        self.names.iter().find(|name| !name.is_empty()).map_or("", String::as_str)
    }

    /// The classes that a text asks for, in ascending order, each once. A text may name several, with commas, `and` or
    /// `or` between. Fails if any is not known; the message names it and what is known, and is for people.
    pub(super) fn asked(&self, text: &str) -> Result<Vec<usize>, String> {
        if let Some(place) = self.place(text) {
            return Ok(vec![place]);
        }
        let mut parted = format!(" {} ", text.to_lowercase());
        for word in BETWEEN {
            parted = parted.replace(word, " , ");
        }
        let parts: Vec<_> = parted.split([',', ';', '.', '/', '|']).map(str::trim).filter(|p| !p.is_empty()).collect();
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        for part in parts {
            match self.place(part) {
                Some(place) => found.push(place),
                None => unknown.push(format!("`{part}`")),
            }
        }
        if !unknown.is_empty() || found.is_empty() {
            let (model, unknown, known) = (&self.model, unknown.join(" and "), self.known());
            let what = if unknown.is_empty() { format!("nothing in \"{text}\"") } else { unknown };
            return Err(format!(
                "{model} knows {what} not as one of its classes; it detects only: {known}. Ask for some of these, or \
                 use a model that reads words"
            ));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// All names, for people.
    fn known(&self) -> String {
        let names: Vec<_> = self.names.iter().filter(|name| !name.is_empty()).map(String::as_str).collect();
        names.join(", ")
    }

    fn place(&self, name: &str) -> Option<usize> {
        let name = plain(name);
        // English plurals: buses, knives, berries, cars.
        let singular = [("", ""), ("s", ""), ("es", ""), ("ies", "y"), ("ves", "fe"), ("ves", "f")];
        let found = singular.iter().find_map(|(end, instead)| {
            let stem = name.strip_suffix(end)?;
            self.places.get(&format!("{stem}{instead}"))
        });
        found.copied()
    }
}

fn is_nothing(name: &str) -> bool {
    NOTHING.contains(&name.trim().to_lowercase().as_str())
}

/// A name as it is compared: its letters and digits, lower case, one space between words, articles left out.
fn plain(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty() && !FILLING.contains(w));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(classes: &[&str], words: &[(&str, &str)]) -> Head {
        let list = |names: &[&str]| names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
        let words: Vec<_> = words.iter().map(|(word, class)| format!("{word:?} = {class:?}")).collect();
        toml::from_str(&format!("classes = [{}]\nwords = {{ {} }}", list(classes), words.join(", "))).unwrap()
    }

    fn coco() -> Classes {
        let names = ["person", "", "Fire Hydrant", "bus", "knife", "car"];
        Classes::of(&head(&names, &[("people", "person"), ("vehicle", "car")]), "tiny").unwrap()
    }

    #[test]
    fn words_find_their_class() {
        for (text, expected) in [
            ("person", vec![0]),
            ("The People!", vec![0]),
            ("a fire hydrant", vec![2]),
            ("fire-hydrants", vec![2]),
            ("buses and knives", vec![3, 4]),
            ("cars, persons; car", vec![0, 5]),
            ("any vehicle or person", vec![0, 5]),
        ] {
            assert_eq!(coco().asked(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn places_that_stand_for_nothing_may_have_a_name() {
        let names = ["__background__", "person", "N/A", " n/a", "car", "NA", ""];
        let classes = Classes::of(&head(&names, &[]), "tiny").unwrap();
        assert_eq!((classes.len(), classes.example()), (7, "person"));
        assert_eq!(classes.asked("car or person"), Ok(vec![1, 4]));
        for text in ["n/a", "na", "background"] {
            let error = classes.asked(text).unwrap_err();
            assert!(error.contains("detects only: person, car."), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        let error = coco().asked("zebra and person").unwrap_err();
        assert!(error.contains("`zebra`") && !error.contains("`person`"), "{error}");
        assert!(error.contains("person, Fire Hydrant, bus, knife, car"), "{error}");
        for text in ["person in a red jacket", "?!", "the", "andperson", ""] {
            assert!(coco().asked(text).is_err(), "{text}");
        }
    }

    #[test]
    fn classes_that_would_mislead_are_refused() {
        for (classes, words, wrong) in [
            (vec![], vec![], "should name"),
            (vec!["", "N/A"], vec![], "should name"),
            (vec!["car", "Car"], vec![], "twice"),
            (vec!["car", "?"], vec![], "no letter"),
            (vec!["car"], vec![("auto", "kar")], "`kar`, which is no class"),
        ] {
            let error = Classes::of(&head(&classes, &words), "tiny").unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_classes_or_a_reason(text in "\\PC{0,30}|((person|cars|bus)( and |, | or |)){0,4}") {
            match coco().asked(&text) {
                Ok(found) => prop_assert!(!found.is_empty() && found.iter().all(|at| *at < 6 && *at != 1)),
                Err(reason) => prop_assert!(reason.contains("detects only")),
            }
        }
    }
}
