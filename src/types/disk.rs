//! What a failure to read or write says of who is to blame.

use std::io;

/// Whether it may pass while the path stays as it is, as what is wrong with a disk does: one that is full, fails, or came up
/// read-only. What is not there, is of another kind, or is not for this user is another path that is meant.
pub fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidData, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound,
        PermissionDenied,
    };
    !matches!(
        error.kind(),
        AlreadyExists
            | InvalidData
            | InvalidFilename
            | InvalidInput
            | IsADirectory
            | NotADirectory
            | NotFound
            | PermissionDenied
    )
}
