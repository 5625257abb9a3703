-- mark rejections
update "levin_planner"."p6f0c2a9e_s1_rejections"
set _levin_parked = 1 = 1
where not _levin_parked and _levin_fingerprint <> ''
  and "tenant" = cast('acme' as character varying(200))
  and "id" = cast('42' as bigint);

-- count what is parked (exactly one row)
update "levin_planner"."p6f0c2a9e_s1_state"
set parked = (select count(*) from "levin_planner"."p6f0c2a9e_s1_rejections" where _levin_parked), basis = 7
where generation = 7;

