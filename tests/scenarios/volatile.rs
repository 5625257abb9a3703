//! Models that give other rows each time they are asked.

use std::collections::BTreeSet;

use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    random_values_make_counts_disagree,
    a_random_sample_makes_counts_disagree,
    random_keys_make_counts_disagree,
);

fn random_values_make_counts_disagree(engine: Engine) {
    let crm = Crm::new(engine, 25, "mode: mirror");
    crm.model("id", "select id, name, random() as dice, now() as asked_at from customers");
    crm.run_sends([25, 0, 0]);
    for _ in 0..2 {
        let before = crm.receiver.count();
        let run = crm.run_sends([0, 25, 0]);
        assert_eq!((run.number("querySize"), run.number("unchangedCount")), (25, 0));
        let keys: BTreeSet<String> = crm.receiver.since(before).iter().flat_map(|r| r.keys()).collect();
        assert_eq!(keys.len(), 25);
    }
    // Rejected and volatile at once.
    crm.receiver.behave(|_| Reply::reject(&["3"], "no"));
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [0, 24, 0], [0, 1, 0]), "{run:#?}");
    // Once it is calm again, one run brings both to the same state.
    crm.receiver.accept();
    crm.model("id", "select id, name, cast(id as double precision) as dice, null as asked_at from customers");
    crm.run();
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_quiet();
}

fn a_random_sample_makes_counts_disagree(engine: Engine) {
    for mode in ["mirror", "insert"] {
        let crm = Crm::new(engine, 40, &format!("mode: {mode}"));
        crm.model("id", "select id, name, random() as dice from customers order by random() limit 15");
        for round in 0..4 {
            let run = crm.run();
            assert_eq!((run.code, run.number("querySize")), (0, 15), "{run:#?}");
            if mode == "mirror" {
                // What was sent is what is there, and what the snapshot holds.
                assert_eq!(crm.receiver.keys().len(), 15, "round {round}");
                assert_eq!(crm.project.snapshots().len(), 15, "round {round}");
            }
        }
        crm.model("id", "select id, name, random() as dice from customers limit 0");
        assert_eq!(crm.run().error(), "GUARD_TRIPPED");
    }
}

fn random_keys_make_counts_disagree(engine: Engine) {
    let crm = Crm::new(engine, 60, "mode: mirror\nguards: {max_set_aside: {percent: 100}}");
    crm.model("id", "select cast(floor(random() * 80) as integer) as id, name from customers");
    for _ in 0..4 {
        let run = crm.run();
        assert!(run.code <= 1, "{run:#?}");
        let queried = run.number("querySize");
        let known = run.number("unchangedCount") + run.planned()[0] + run.planned()[1];
        assert_eq!(queried, 60);
        assert_eq!(known + run.number("duplicateKeyCount") + run.number("nullKeyCount"), queried);
        // Keys set aside keep what they had, so the destination holds what the snapshot does.
        assert_eq!(crm.receiver.keys().len(), crm.project.snapshots().len(), "{run:#?}");
    }
}
