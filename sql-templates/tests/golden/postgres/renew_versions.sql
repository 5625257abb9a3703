-- give what is in doubt other versions
update "levin_planner"."p6f0c2a9e_s1_doubts"
set _levin_version = _levin_version || '.7'
where _levin_version is not null;

