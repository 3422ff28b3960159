//! The table of all checks.

use std::fmt;
use std::pin::Pin;

use anyhow::Result;

use super::checks;
use super::context::Context;
use super::harness::Shell;

type Verdict<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One check of the suite.
pub struct Check {
    /// Its name, which is also that of its test.
    pub name: &'static str,
    /// Numbers of the rules that it checks.
    pub rules: &'static [&'static str],
    /// What the guest must understand.
    pub shell: Shell,
    pub(super) run: for<'a> fn(&'a Context<'a>) -> Verdict<'a>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// All checks. The one list of them; tests and table are made from it.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ($callback:ident $arguments:tt) => {
        $crate::$callback! { $arguments
            life_cycle::unknown_image_is_refused ["B1"] Minimal;
            life_cycle::unknown_snapshot_is_refused ["B1"] Minimal;
            life_cycle::malformed_ids_are_absent ["B1", "B3", "B4"] Minimal;
            life_cycle::snapshot_exists_follows_its_life ["B3", "B4"] Minimal;
            life_cycle::files_stay_between_commands ["V7"] Minimal;
            life_cycle::vms_do_not_see_each_other ["B2"] Minimal;
            life_cycle::exit_codes_come_back ["V1"] Minimal;
            life_cycle::calls_after_destroy_fail ["V12"] Minimal;
            life_cycle::dropped_vms_are_freed ["V12"] Minimal;
            life_cycle::destroyed_vms_are_freed ["V12"] Minimal;
            life_cycle::labels_are_any_string ["V9"] Minimal;
            life_cycle::failures_leave_nothing_behind ["B1", "V6", "V8"] Minimal;
            refusals::capabilities_are_consistent ["B6"] Minimal;
            refusals::undeclared_limits_are_refused ["B6"] Minimal;
            refusals::declared_limits_are_accepted ["B6"] Minimal;
            refusals::undeclared_networks_are_refused ["B6"] Minimal;
            refusals::undeclared_terminal_is_refused ["B6"] Minimal;
            refusals::image_digests_are_stable ["B1"] Minimal;
            refusals::inject_digests_follow_contents ["V8"] Minimal;
            snapshots::a_fork_never_sees_later_writes ["B2", "V9"] Minimal;
            snapshots::two_forks_go_their_own_ways ["B2", "B8"] Minimal;
            snapshots::snapshot_go_on_snapshot_again ["V9"] Minimal;
            snapshots::an_unchanged_vm_can_be_snapshotted ["V9"] Minimal;
            snapshots::a_failed_command_can_be_snapshotted ["V9"] Minimal;
            snapshots::children_outlive_their_parent ["B5"] Minimal;
            snapshots::removal_in_any_order_keeps_the_rest ["B5", "V9"] Minimal;
            snapshots::a_chain_of_a_thousand_snapshots ["V11"] Minimal;
            snapshots::snapshots_are_seen_by_other_handles ["B3", "B8"] Minimal;
            snapshots::forks_race_with_removal ["B4", "B8"] Minimal;
            inject::inject_brings_the_contents ["V8"] Minimal;
            inject::a_second_inject_removes_what_is_gone ["V8"] Minimal;
            inject::ignore_files_are_honoured ["V8"] Minimal;
            inject::inject_keeps_existing_directories ["V8"] Minimal;
            inject::wrong_inject_paths_are_invalid ["V8"] Minimal;
            inject::injected_files_are_not_shared ["B2", "V8"] Minimal;
            inject::inject_does_not_follow_links_to_the_host ["B2", "V8"] Minimal;
            inject::injected_files_belong_to_root ["V8"] Posix;
            inject::odd_sources_are_injected ["V8"] Posix;
            patterns::undeclared_patterns_are_refused ["B6", "V17"] Minimal;
            patterns::patterns_say_what_is_brought ["V17"] Minimal;
            patterns::digests_follow_the_patterns ["V17"] Minimal;
            patterns::bad_patterns_are_invalid ["V17"] Minimal;
            outputs::undeclared_outputs_are_refused ["B6", "V18"] Minimal;
            outputs::outputs_are_brought_by_patterns ["V18"] Minimal;
            outputs::equal_outputs_are_left_alone ["V18"] Minimal;
            outputs::outputs_stay_in_their_place ["V18"] Minimal;
            outputs::wrong_outputs_are_invalid ["V18"] Minimal;
            outputs::special_outputs_are_left_out ["V18"] Posix;
            input::odd_environment_arrives ["V4"] Posix;
            input::the_default_environment_is_clean ["V4"] Posix;
            input::stdin_ends_and_the_session_is_own ["V4"] Posix;
            input::no_descriptors_leak_in ["V4"] Posix;
            input::working_directories ["V6"] Posix;
            input::a_command_with_a_nul_is_invalid ["V5"] Minimal;
            input::a_mebibyte_of_arguments_arrives ["V5"] Posix;
            input::a_long_command_is_like_a_short_one ["V1", "V5"] Posix;
            output::binary_output_is_exact ["V3"] Posix;
            output::lines_are_exact ["V3"] Posix;
            output::streams_keep_their_order ["V3"] Posix;
            output::much_output_flows_through ["V3"] Posix;
            output::an_over_long_line_comes_in_pieces ["V3"] Posix;
            output::no_output_after_the_end ["V2", "V3"] Posix;
            processes::signals_are_128_plus_their_number ["V1"] Posix;
            processes::a_missing_shell_is_127 ["V1"] Posix;
            processes::background_processes_end ["V2"] Posix;
            processes::left_over_loops_write_no_more ["B2", "V2"] Posix;
            processes::zombies_are_reaped ["V2"] Posix;
            processes::processes_do_not_see_other_vms ["B2"] Posix;
            stop::a_stopped_command_tells_the_cause ["V13"] Minimal;
            stop::a_stop_before_or_after_the_command ["V13"] Minimal;
            stop::the_grace_period_ends ["V13"] Minimal;
            stop::a_kill_is_at_once ["V13"] Minimal;
            stop::a_trap_sees_sigterm ["V13"] Minimal;
            stop::all_processes_are_stopped ["V13"] Posix;
            stop::a_stop_while_output_flows ["V3", "V13"] Posix;
            stop::a_dropped_exec_leaves_no_process ["B7", "V2"] Posix;
            stop::usage_is_measured ["V1"] Posix;
            drops::dropped_creates_leave_nothing ["B7"] Minimal;
            drops::dropped_work_leaves_nothing ["B7", "V2"] Minimal;
            drops::dropped_snapshots_leave_nothing ["B7", "V9"] Minimal;
            drops::dropped_removals_can_be_repeated ["B4", "B7", "V12"] Minimal;
            files::modes_are_kept ["V10"] Posix;
            files::times_are_kept ["V9", "V10"] Posix;
            files::owners_are_kept ["V9"] Posix;
            files::links_are_kept ["V10"] Posix;
            files::holes_and_fifos_are_kept ["V10"] Posix;
            files::attributes_are_kept ["V10"] Posix;
            files::odd_names_are_kept ["V10"] Posix;
            files::a_hundred_thousand_files ["V9", "V10"] Posix;
            files::deletions_are_kept ["V9", "V10"] Posix;
            files::lower_directories_can_be_renamed ["V9", "V10"] Posix;
            concurrency::sixty_four_vms_at_once ["B2", "B8"] Minimal;
            concurrency::many_forks_of_one_snapshot ["B2", "B8"] Minimal;
            limits::the_memory_limit_holds ["B6"] Posix;
            limits::writing_files_is_no_memory_hog ["B6"] Posix;
            limits::the_pids_limit_holds ["B6"] Posix;
            limits::the_cpu_limit_holds ["B6"] Posix;
            limits::the_disk_limit_holds ["B6"] Posix;
            network::no_network_is_loopback_only ["B6"] Posix;
            network::host_network_is_the_hosts ["B6"] Posix;
            network::outbound_network_is_another ["B6"] Posix;
            network::provided_files_stay_out_of_snapshots ["V9"] Posix;
            terminal::a_terminal_session_works ["V1", "V7"] Posix;
            terminal::a_terminal_session_can_be_ended ["V2", "V13"] Posix;
            users::undeclared_users_are_refused ["B6", "V14"] Minimal;
            users::unknown_users_are_refused ["V14"] Minimal;
            users::commands_run_as_their_user ["V14"] Posix;
            mounts::undeclared_mounts_are_refused ["B6", "V15", "V16"] Minimal;
            mounts::places_that_cannot_be_are_refused ["V15", "V16"] Minimal;
            mounts::caches_outlive_their_vm ["V15"] Posix;
            mounts::secrets_are_readable_and_not_kept ["V16"] Posix;
            mounts::secrets_belong_to_the_commands_user ["V14", "V16"] Posix;
            private_network::undeclared_private_networks_are_refused ["B6", "V19"] Minimal;
            private_network::members_reach_each_other_alone ["V19"] Posix;
            private_network::networks_leave_nothing_behind ["B7", "V19"] Posix;
            defaults::undeclared_image_defaults_are_refused ["B6", "V20"] Minimal;
            defaults::an_image_that_names_no_directory ["V20"] Minimal;
            defaults::commands_get_what_the_image_says ["V20"] Minimal;
            defaults::injects_go_to_the_images_directory ["V20"] Minimal;
            defaults::the_images_user_runs_commands ["V14", "V20"] Posix;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    (() $($subject:ident :: $name:ident [$($rule:literal),+] $shell:ident;)*) => {
        &[$(Check {
            name: stringify!($name),
            rules: &[$($rule),+],
            shell: Shell::$shell,
            run: |context| Box::pin(checks::$subject::$name(context)),
        }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    (($factory:expr) $($subject:ident :: $name:ident [$($rule:literal),+] $shell:ident;)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run_test(stringify!($name), $factory);
            }
        )*
    };
}

/// Makes one test per check of the suite, of the check's name.
///
/// Takes a path to an `async fn() -> Result<impl Harness, Skip>`, called once in each test.
#[macro_export]
macro_rules! conformance_tests {
    ($factory:expr) => {
        $crate::__conformance_checks! { __conformance_tests ($factory) }
    };
}

/// Every check, in the order in which [`run_all`](super::run_all) runs them.
pub const CHECKS: &[Check] = crate::__conformance_checks! { __conformance_table () };
