//! What is remembered of the control servers that ever were members: no id and no name comes again, because a server that
//! voted under an id and lost its disk would vote a second time, and a removed server still has its certificate.

use proto::{
    member::{Member, MemberAct},
    mutation::{Grounds, Mutation, Outcome, Refused},
};
use serde::{Deserialize, Serialize};

use super::{
    Step,
    audit::check_grounds,
    keys::{Keys, Kind, behind, key, read, stored},
    policy::full,
};

/// Most members that ever were.
const MEMBERS_MAX: usize = 10_000;

/// A member, or one that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Id, name, site, address.
    pub member: Member,
    /// Whether its removal has begun; then it never comes back.
    pub removed: bool,
}

fn member_key(id: u64) -> Vec<u8> {
    key(Kind::Member, &[&id.to_be_bytes()])
}

/// Whoever ever was a member, in the order of the ids.
pub fn all(keys: &impl Keys) -> Vec<MemberRecord> {
    let prefix = key(Kind::Member, &[]);
    let to = behind(&prefix);
    keys.range(&prefix, &to).map(|(_, value)| stored("a member", &value)).collect()
}

/// Whether the removal of the member with this id, if one is given, or with this name has begun.
pub fn is_removed(keys: &impl Keys, id: Option<u64>, name: &str) -> bool {
    let record = id.and_then(|id| read::<MemberRecord>(keys, "a member", &member_key(id)));
    record.is_some_and(|record| record.removed)
        || all(keys).into_iter().any(|record| record.removed && record.member.name == name)
}

/// Whether a new member may have this id and this name.
///
/// # Errors
/// `Refused::Invalid`, with an id that is free.
pub fn is_free(records: &[MemberRecord], member: &Member) -> Result<(), Refused> {
    let next = records.iter().map(|record| record.member.id).max().unwrap_or_default() + 1;
    let Member { id, name, .. } = member;
    for MemberRecord { member: other, removed } in records {
        let same = other.id == *id && other.name == *name;
        if same && !removed {
            continue;
        }
        let reason = if *removed { "was removed" } else { "is another member" };
        if other.id == *id {
            let text = format!(
                "id {id} belongs to {}, which {reason}: no id is used again; {next} is free (--id {next}, and id in the new \
                 server's control.yaml, with an empty data folder)",
                other.name
            );
            return Err(Refused::Invalid(text));
        }
        if other.name == *name {
            let text = format!(
                "the name {name} belongs to id {}, which {reason}: no name is used again, because its certificate is still \
                 out there; make a certificate under a new name with `posternctl cluster issue`",
                other.id
            );
            return Err(Refused::Invalid(text));
        }
    }
    Ok(())
}

impl<K: Keys> Step<'_, K> {
    /// Leaves the trace of a change of the membership, before Raft is asked.
    pub(super) fn member(
        &mut self,
        mutation: &Mutation,
        act: &MemberAct,
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let records = all(&self.keys);
        full("members that ever were", records.len(), MEMBERS_MAX)?;
        match act {
            MemberAct::Form { members } => {
                if !records.is_empty() {
                    return Err(Refused::Invalid("the group was formed before".into()));
                }
                full("members of a new group", members.len(), MEMBERS_MAX)?;
                members.iter().for_each(|member| self.put_member(member, false));
            }
            MemberAct::Add { member } => {
                is_free(&records, member)?;
                self.put_member(member, false);
            }
            MemberAct::Promote { member } => is_free(&records, member)?,
            MemberAct::Remove { member, .. } => self.put_member(member, true),
            MemberAct::Transfer { .. } => {}
        }
        self.audit(mutation, what(act), grounds);
        Ok(Outcome::Done)
    }

    fn put_member(&mut self, member: &Member, removed: bool) {
        self.keys.put(member_key(member.id), &MemberRecord { member: member.clone(), removed });
    }
}

/// The line in the audit log.
fn what(act: &MemberAct) -> String {
    let named = |member: &Member| {
        let Member { id, name, site, address } = member;
        format!("{name} (id {id}, site {site}, {address})")
    };
    match act {
        MemberAct::Form { members } => {
            format!("formed the cluster of {}", members.iter().map(named).collect::<Vec<_>>().join(", "))
        }
        MemberAct::Add { member } => format!("add control server {}", named(member)),
        MemberAct::Promote { member } => format!("give control server {} its vote", named(member)),
        MemberAct::Remove { member, forced } => {
            format!("remove control server {}{}", named(member), if *forced { ", with force" } else { "" })
        }
        MemberAct::Transfer { from, to } => format!("hand leadership over from {from} to {to}"),
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        member::{Member, MemberAct},
        mutation::{Change, Grounds, Outcome, Refused},
    };

    use super::{all, is_removed};
    use crate::state::{
        query,
        testing::{World, node, operator},
    };

    fn member(id: u64, name: &str) -> Member {
        Member { id, name: name.into(), site: "north".into(), address: format!("{name}.test:7001") }
    }

    fn change(act: MemberAct) -> Change {
        Change::Member { act, grounds: Grounds { why: "the disk broke".into(), ticket: "T-1".into() } }
    }

    fn formed() -> World {
        let mut world = World::new();
        let members = vec![member(1, "alpha"), member(2, "beta")];
        assert_eq!(world.apply(operator("anna"), change(MemberAct::Form { members })), Outcome::Done);
        world
    }

    #[test]
    fn an_id_or_a_name_that_ever_was_is_never_given_again() {
        let mut world = formed();
        let mut add = |id, name| world.apply(operator("anna"), change(MemberAct::Add { member: member(id, name) }));
        assert_eq!(add(3, "gamma"), Outcome::Done);
        assert_eq!(add(3, "gamma"), Outcome::Done, "to ask twice is harmless");
        for (id, name) in [(3, "delta"), (4, "gamma"), (1, "delta")] {
            assert!(matches!(add(id, name), Outcome::Refused(Refused::Invalid(text)) if text.contains("is another")));
        }
        let gone = change(MemberAct::Remove { member: member(3, "gamma"), forced: false });
        assert_eq!(world.apply(operator("anna"), gone), Outcome::Done);
        assert!(is_removed(&world.keys, Some(3), "new") && is_removed(&world.keys, None, "gamma"));
        assert!(!is_removed(&world.keys, Some(2), "beta") && !is_removed(&world.keys, Some(9), "new"));
        let mut add = |id, name| world.apply(operator("anna"), change(MemberAct::Add { member: member(id, name) }));
        for (id, name) in [(3, "gamma"), (3, "delta"), (4, "gamma")] {
            let refused = add(id, name);
            assert!(
                matches!(&refused, Outcome::Refused(Refused::Invalid(text)) if text.contains("was removed")),
                "{refused:?}"
            );
        }
        assert_eq!(add(4, "delta"), Outcome::Done);
        let promote = change(MemberAct::Promote { member: member(3, "gamma") });
        assert!(matches!(world.apply(operator("anna"), promote), Outcome::Refused(_)), "its removal has begun");
    }

    #[test]
    fn each_change_of_the_membership_leaves_who_why_and_ticket() {
        let mut world = formed();
        for act in [
            MemberAct::Add { member: member(3, "gamma") },
            MemberAct::Promote { member: member(3, "gamma") },
            MemberAct::Transfer { from: "alpha".into(), to: "gamma".into() },
            MemberAct::Remove { member: member(1, "alpha"), forced: true },
        ] {
            assert_eq!(world.apply(operator("anna"), change(act)), Outcome::Done);
        }
        let records = query::audit(&world.keys, 0, 10).records;
        let what: Vec<&str> = records.iter().rev().map(|record| record.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "formed the cluster of alpha (id 1, site north, alpha.test:7001), beta (id 2, site north, beta.test:7001)",
                "add control server gamma (id 3, site north, gamma.test:7001)",
                "give control server gamma (id 3, site north, gamma.test:7001) its vote",
                "hand leadership over from alpha to gamma",
                "remove control server alpha (id 1, site north, alpha.test:7001), with force",
            ]
        );
        let signed = |record: &proto::audit::AuditRecord| {
            record.by == "operator/anna" && record.why == "the disk broke" && record.ticket == "T-1"
        };
        assert!(records.iter().all(signed));
        assert_eq!(all(&world.keys).len(), 3);
        let silent =
            Change::Member { act: MemberAct::Add { member: member(5, "epsilon") }, grounds: Grounds::default() };
        assert!(matches!(world.apply(operator("anna"), silent.clone()), Outcome::Refused(Refused::Invalid(_))));
        assert!(matches!(world.apply(node("mx1"), silent), Outcome::Refused(Refused::Role { .. })));
    }
}
