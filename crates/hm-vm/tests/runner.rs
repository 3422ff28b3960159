//! All tests of the engine but the contract's, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::print_stdout, reason = "worker processes talk to their test")]

mod runner {
    mod dropping;
    mod execute;
    #[cfg(feature = "sandbox")]
    mod gc;
    mod handover;
    mod logs;
    mod lost;
    mod masking;
    mod options;
    mod output;
    mod preparation;
    mod processes;
    mod registry;
    mod registry_files;
    #[cfg(feature = "sandbox")]
    mod sandbox;
    #[cfg(feature = "sandbox")]
    mod shared;
    mod single_flight;
    mod support;
}
