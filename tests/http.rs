//! The HTTP stage over real connections: routes, live streams, hostile requests, slow readers.

#[path = "support/http_client.rs"]
mod client;
#[path = "support/http_feed.rs"]
mod feed;
