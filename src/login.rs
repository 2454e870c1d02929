//! How a login is written: into an address, or its password into a file.

use percent_encoding::percent_decode_str;
use url::Url;

/// An address, and the login that was written into it. Not `Debug`: it must not reach a log.
#[derive(Clone)]
pub struct Login {
    /// The address without user name and password, its query kept.
    pub address: String,
    /// The user name.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl Login {
    /// Takes the login out of `address`. What is no URL of a host has none, and stays as it is.
    pub fn of(address: &str) -> Self {
        let mut login = Self { address: address.to_owned(), user: None, password: None };
        if let Ok(mut url) = Url::parse(address)
            && url.has_host()
        {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            login.user = Some(url.username()).filter(|user| !user.is_empty()).map(decoded);
            login.password = url.password().map(decoded);
            if url.set_username("").and_then(|()| url.set_password(None)).is_ok() {
                login.address = url.to_string();
            }
        }
        login
    }
}

/// The password in the text of a file, which is its first line; `None` if that is empty.
pub fn password(text: &str) -> Option<&str> {
    // Editors of Windows begin files with a mark that nobody sees.
    text.trim_start_matches('\u{feff}').lines().next().filter(|line| !line.is_empty())
}
