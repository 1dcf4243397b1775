//! Which members must have a body: a rule that needs nothing but the record and the membership, so that each server finds out for
//! itself, and nothing is written when a server is replaced.
//!
//! The members that the record names are to keep it. When they do not stand in two sites (any more), because some were removed or
//! the state was restored into another cluster, members are added by rendezvous hashing: of those in other sites the one with the
//! highest hash of its name and the body's. All servers choose the same ones, and a change of the membership moves few bodies.

use std::collections::BTreeSet;

use proto::held::BodyRef;
use sha2::{Digest as _, Sha256};

use super::peers::Keeper;

/// The members that must have this body: in two sites, as soon as the membership spans two.
#[must_use]
pub fn keepers_of<'m>(body: &BodyRef, members: &'m [Keeper]) -> Vec<&'m Keeper> {
    let (mut keepers, mut others): (Vec<&Keeper>, Vec<&Keeper>) =
        members.iter().partition(|member| body.servers.contains(&member.name));
    others.sort_by_cached_key(|member| std::cmp::Reverse(weight(member, &body.digest)));
    for member in others {
        let sites: BTreeSet<&str> = keepers.iter().map(|keeper| keeper.site.as_str()).collect();
        if sites.len() >= 2 {
            break;
        }
        if !sites.contains(member.site.as_str()) {
            keepers.push(member);
        }
    }
    keepers
}

fn weight(member: &Keeper, digest: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(member.name.as_bytes());
    hash.update([0]);
    hash.update(digest.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::held::BodyRef;

    use super::keepers_of;
    use crate::bodies::peers::Keeper;

    fn members(all: &[(&str, &str)]) -> Vec<Keeper> {
        let keeper = |(name, site): &(&str, &str)| Keeper {
            name: (*name).into(),
            site: (*site).into(),
            address: format!("{name}.test:7001"),
        };
        all.iter().map(keeper).collect()
    }

    fn body(number: u64, servers: &[&str]) -> BodyRef {
        let servers = servers.iter().map(|name| (*name).to_owned()).collect();
        BodyRef { digest: format!("{number:064x}"), size_bytes: 1, servers }
    }

    fn names(body: &BodyRef, members: &[Keeper]) -> Vec<String> {
        keepers_of(body, members).iter().map(|keeper| keeper.name.clone()).collect()
    }

    #[test]
    fn who_is_named_keeps_it_and_nobody_else_as_long_as_they_stand_in_two_sites() {
        let all = members(&[("a", "north"), ("b", "south"), ("c", "west")]);
        for number in 0..100 {
            assert_eq!(names(&body(number, &["a", "c"]), &all), ["a", "c"]);
        }
    }

    #[test]
    fn a_removed_or_unknown_server_is_replaced_by_one_in_another_site() {
        let left = members(&[("a", "north"), ("b", "north"), ("d", "south"), ("e", "west")]);
        let mut chosen = BTreeSet::new();
        for number in 0..100 {
            let keepers = names(&body(number, &["a", "gone"]), &left);
            assert_eq!((keepers.len(), keepers[0].as_str()), (2, "a"), "{keepers:?}");
            chosen.insert(keepers[1].clone());
            let restored = keepers_of(&body(number, &["old-1", "old-2"]), &left);
            let sites: BTreeSet<&str> = restored.iter().map(|keeper| keeper.site.as_str()).collect();
            assert_eq!((restored.len(), sites.len()), (2, 2), "{restored:?}");
        }
        assert_eq!(
            chosen,
            BTreeSet::from(["d".to_owned(), "e".to_owned()]),
            "the work is shared, never in its own site"
        );
    }

    #[test]
    fn all_servers_choose_the_same_whatever_the_order_of_the_membership() {
        let one = members(&[("a", "north"), ("b", "south"), ("c", "west"), ("d", "east")]);
        let other: Vec<Keeper> = one.iter().rev().cloned().collect();
        for number in 0..100 {
            let body = body(number, &["gone"]);
            let sorted = |members: &[Keeper]| names(&body, members).into_iter().collect::<BTreeSet<_>>();
            assert_eq!(sorted(&one), sorted(&other));
        }
    }

    #[test]
    fn in_one_site_one_server_keeps_what_nobody_is_named_for() {
        let all = members(&[("a", "north"), ("b", "north")]);
        assert_eq!(keepers_of(&body(1, &["gone"]), &all).len(), 1);
        assert!(keepers_of(&body(1, &["gone"]), &[]).is_empty());
    }
}
