//! Arguments -> one subcommand -> exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    groundd::cli::main()
}
