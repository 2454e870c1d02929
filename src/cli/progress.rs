//! Progress on stderr, for work that takes a person's time. Silent where nobody watches.

use std::{borrow::Cow, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that does not parse leaves the default style: ugly, not wrong.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A bar for `total` bytes of `what`.
pub(super) fn bytes(total: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let template = "{msg:20} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    styled(ProgressBar::new(total), template).with_message(what)
}

/// A bar for `total` pieces of work, which says how long it will take.
pub(super) fn items(total: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let bar = styled(ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} [{elapsed} < {eta}]").with_message(what);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// A spinner that says what is going on; call `set_message` as it changes.
pub(super) fn spinner(what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let spinner = styled(ProgressBar::new_spinner(), "{spinner} {msg} [{elapsed}]").with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}
