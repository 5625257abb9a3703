-- create the outcomes
create table "levin_planner"."p6f0c2a9e_s1_outcomes_7_0" (
  sequence bigint,
  outcome text,
  in_doubt boolean,
  code text,
  reason text
);

