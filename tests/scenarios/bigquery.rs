//! Scenarios of the other warehouses, on BigQuery's double: whole runs of statements that stand apart, as jobs.

use tests::project::{Engine, in_bigquery};

/// Makes a test of each named scenario. They ask no engine which it is, so it says nothing that they are told one.
macro_rules! on_bigquery {
    ($($module:ident: $($test:ident),*;)*) => {
        $($(#[test]
        fn $test() {
            in_bigquery(|| super::$module::$test(Engine::Postgres));
        })*)*
    };
}

on_bigquery!(
    changes: unchanged_rows_are_sent_again, an_edit_sends_more_than_its_row, a_removal_is_not_sent_or_sent_twice, nulls_and_empty_texts_are_taken_for_the_same;
    commands: a_plan_changes_something, a_plan_is_not_what_the_run_does, gc_drops_what_is_in_use;
    doubt: a_lost_answer_leaves_the_old_value_behind;
    interruption: a_crash_repeats_more_than_was_under_way, a_crash_in_the_first_run_forgets_what_was_accepted, a_second_run_of_the_same_sync_interferes;
    keys: a_duplicate_key_overwrites_or_removes_a_row;
    matching: two_rows_that_swap_their_addresses_lose_them, a_changed_address_leaves_the_old_record;
    rejections: a_rejected_row_is_never_tried_again;
    shape: a_new_column_sends_everything_again, the_type_of_a_key_sends_everything_again;
    start_over: a_full_resync_misses_rows_or_forgets_removals, a_reset_sends_or_forgets;
);
