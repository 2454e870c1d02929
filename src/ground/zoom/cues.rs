//! From a question to the things it is about, and back to questions about them.
//!
//! The original lets the language model name them, after a few examples of how that is done, and reads them out of its
//! last sentence (`generate_visual_cues_using_ic`, `utils`). Phrases with a pronoun are left out: `his bag` is of nobody
//! once it stands alone. The original asks a tagger which words are pronouns; here they are a list.

/// What precedes a cue of which all are wanted.
const ALL: &str = "all ";

/// What the model's answer is searched for.
const MARKER: &str = "So I need the information about the following objects: ";

/// English pronouns, possessives among them, as the tagger of the original has them.
const PRONOUNS: &str = " i me my mine myself you your yours yourself yourselves he him his himself she her hers herself \
    it its itself we us our ours ourselves they them their theirs themselves who whom whose which what this that these \
    those something anything nothing everything someone anyone everyone somebody anybody nobody everybody one another ";

/// A question, and how a model should think about it.
const EXAMPLES: [(&str, &str); 3] = [
    (
        "What does the sticker on the blue suitcase say?",
        "To answer the question, I have to find the blue suitcase and read what is on it. So I need the information \
         about the following objects: blue suitcase.",
    ),
    (
        "Does the cyclist ride towards the bus stop or away from it?",
        "To answer the question, I have to find the cyclist and the bus stop and compare where they are. So I need the \
         information about the following objects: cyclist and bus stop.",
    ),
    (
        "How many dogs are in the picture?",
        "To answer the question, I have to find every dog and count them. So I need the information about the \
         following objects: all dogs.",
    ),
];

/// What the model is asked so that it names the cues of `question`: earlier turns, each with its answer, and the last.
pub fn conversation(question: &str) -> (Vec<(String, &'static str)>, String) {
    let asked = |question: &str| {
        format!("Question: {question}\nIf you want to answer the question, which objects' information do you need?")
    };
    (EXAMPLES.iter().map(|(question, answer)| (asked(question), *answer)).collect(), asked(question))
}

/// The cues that a model's answer names, without those that lean on a pronoun.
pub fn read(answer: &str) -> Vec<String> {
    let Some((_, rest)) = answer.split_once(MARKER) else { return Vec::new() };
    let line = rest.lines().next().unwrap_or_default();
    let line = line.strip_suffix('.').unwrap_or(line);
    let cues = line.split(" and ").flat_map(|part| part.split(", "));
    cues.filter(|cue| !cue.is_empty() && !has_pronoun(cue)).map(str::to_owned).collect()
}

fn has_pronoun(cue: &str) -> bool {
    let lower = cue.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.any(|word| PRONOUNS.contains(&format!(" {word} ")))
}

/// Whether all of a kind are wanted.
pub fn is_all(cue: &str) -> bool {
    cue.starts_with(ALL)
}

/// What one of `all dogs` is called. English plurals are more than an s; so the original, too.
pub fn singular(cue: &str) -> &str {
    let cue = cue.strip_prefix(ALL).unwrap_or(cue);
    cue.strip_suffix('s').unwrap_or(cue)
}

/// The question that a phrase is the answer to.
pub fn question_where(phrase: &str) -> String {
    format!("Where is the {phrase}?")
}

/// The question that stands for a cue among several.
pub fn question_about(cue: &str) -> String {
    format!("What is the appearance of the {cue}?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cues_are_read_from_the_last_sentence() {
        let said =
            |list: &str| read(&format!("To answer … So I need the information about the following objects: {list}"));
        assert_eq!(said("white car and yellow car."), ["white car", "yellow car"]);
        assert_eq!(said("man, his bag and all flower pots\nMore."), ["man", "all flower pots"]);
        assert_eq!(said("."), Vec::<String>::new());
        assert_eq!(read("I do not know."), Vec::<String>::new());
    }

    #[test]
    fn the_examples_can_be_read() {
        let (turns, last) = conversation("Where is the cat?");
        let cues: Vec<_> = turns.iter().flat_map(|(_, answer)| read(answer)).collect();
        assert_eq!(cues, ["blue suitcase", "cyclist", "bus stop", "all dogs"]);
        assert!(last.starts_with("Question: Where is the cat?\n"));
    }

    #[test]
    fn all_of_a_kind_is_told_from_one() {
        assert!(is_all("all red cars") && !is_all("allotment") && !is_all("red cars"));
        assert_eq!((singular("all red cars"), singular("all sheep")), ("red car", "sheep"));
    }
}
