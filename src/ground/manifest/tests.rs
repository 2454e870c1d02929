//! Numbers that a manifest may not have.

use super::*;

const TINY: &str = include_str!("../../../tests/data/tiny/model.toml");

/// The manifest of a model without a decoder, with one more line among its `[limits]`.
fn limited(dir: &Path, line: &str) -> Result<Manifest, ManifestError> {
    fs::write(dir.join(FILE_NAME), TINY.replace("[limits]", &format!("[limits]\n{line}"))).unwrap();
    Manifest::load(dir)
}

#[test]
fn a_limit_of_nothing_is_refused_where_it_would_leave_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    for (key, most) in [("answer_tokens", 1 << 16), ("boxes", 4096), ("rows", 256)] {
        let text = limited(dir.path(), &format!("{key} = 0")).unwrap_err().to_string();
        assert!(text.contains(&format!("limits.{key}: is 0; should be 1 to {most}")), "{text}");
        let text = limited(dir.path(), &format!("{key} = {}", most + 1)).unwrap_err().to_string();
        assert!(text.contains(&format!("limits.{key}: is {}", most + 1)), "{text}");
        for good in [1, most] {
            limited(dir.path(), &format!("{key} = {good}")).unwrap();
        }
    }
    // Without a decoder nothing needs these, and 0 is what they are unless they are given.
    for key in ["context", "image_tokens"] {
        assert_eq!(limited(dir.path(), &format!("{key} = 0")).unwrap().limits, limited(dir.path(), "").unwrap().limits);
    }
}
