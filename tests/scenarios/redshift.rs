//! Scenarios of the other warehouses, on Redshift's double: whole runs whose every statement Redshift would take.

use tests::project::Engine;

/// Makes a test of each named scenario.
macro_rules! on_redshift {
    ($($module:ident: $($test:ident),*;)*) => {
        $($(#[test]
        fn $test() {
            super::$module::$test(Engine::Redshift);
        })*)*
    };
}

on_redshift!(
    changes: unchanged_rows_are_sent_again, a_removal_is_not_sent_or_sent_twice;
    commands: a_plan_changes_something;
    doubt: a_lost_answer_leaves_the_old_value_behind;
    interruption: a_crash_in_the_first_run_forgets_what_was_accepted, a_second_run_of_the_same_sync_interferes;
    keys: a_duplicate_key_overwrites_or_removes_a_row;
    matching: two_rows_that_swap_their_addresses_lose_them;
    rejections: a_rejected_row_is_never_tried_again;
    shape: a_new_column_sends_everything_again;
);
