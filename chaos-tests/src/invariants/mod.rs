//! What must hold whatever goes wrong: one file an invariant. Each is a function from what clients were told, or from what lies on
//! the disks, to what is wrong with it; nothing wrong is an empty list.

pub mod a_confirmed_view_is_up_to_date;
pub mod a_cut_off_server_answers_nothing;
pub mod a_cut_off_server_refuses_soon;
pub mod a_healed_cluster_serves_again;
pub mod a_release_takes_effect_at_most_once;
pub mod a_view_never_moves_back;
pub mod all_replicas_end_with_the_same_digest;
pub mod histories_are_linearizable;
pub mod no_server_ends_by_itself;
pub mod nothing_acknowledged_is_lost;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, in words.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}
