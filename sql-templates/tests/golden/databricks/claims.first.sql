-- count the claims (returns rows)
select _levin_claim, 'added' as _levin_operation, count(*) as claims
from `levin_planner`.`p6f0c2a9e_s1_diff_7`
where _levin_claim is not null
group by _levin_claim;

