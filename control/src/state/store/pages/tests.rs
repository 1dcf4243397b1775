//! Pages against a map: whatever is written, the same is read, from both ends.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Damaged, PAGE_BYTES, Pages, Read, find, range, rewrite, value};
use crate::state::keys::Keys;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn tree() -> (tempfile::TempDir, sled::Db) {
    let folder = tempfile::tempdir().expect("a folder");
    let db = sled::Config::new().path(folder.path().join("state")).open().expect("a store");
    (folder, db)
}

fn store(tree: &sled::Tree, map: &mut Map, changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
    let mut batch = sled::Batch::default();
    let each = changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
    Pages::of(tree).stage(each, &mut batch).expect("staged");
    tree.apply_batch(batch).expect("stored");
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn pages(tree: &sled::Tree) -> Vec<(sled::IVec, sled::IVec)> {
    tree.iter().map(|page| page.expect("readable")).collect()
}

fn changes() -> impl Strategy<Value = BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let key = (1_u8..40, 0_u8..4).prop_map(|(first, second)| vec![first, second]);
    let value = prop_oneof![3 => (0_usize..300).prop_map(Some), 1 => Just(Some(2 * PAGE_BYTES)), 2 => Just(None)];
    let value = value.prop_map(|length| length.map(|length| vec![u8::try_from(length % 251).expect("small"); length]));
    proptest::collection::btree_map(key, value, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_written_is_read_from_both_ends(
        batches in proptest::collection::vec(changes(), 1..6),
        bounds in (0_u8..41, 0_u8..41),
        ends in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let (_folder, tree) = tree();
        tree.insert(b"\0private", b"ours").expect("stored");
        let mut map = Map::new();
        for changes in &batches {
            store(&tree, &mut map, changes);
        }
        for key in (0..=41).flat_map(|first| (0..4).map(move |second| vec![first, second])) {
            prop_assert_eq!(value(&tree, &key).expect("readable"), map.get(&key).cloned());
        }
        let (from, to) = ([bounds.0.max(1)], [bounds.1.max(1)]);
        let mut expected = Keys::range(&map, &from, &to);
        let mut found = range(&tree, &from, &to).expect("readable").map(|pair| pair.expect("readable"));
        for front in ends {
            if front {
                prop_assert_eq!(found.next(), expected.next());
            } else {
                prop_assert_eq!(found.next_back(), expected.next_back());
            }
        }
        // No page is larger than it should be unless one pair is, and none is empty.
        for (_, page) in pages(&tree).into_iter().skip(1) {
            prop_assert!(!page.is_empty() && (page.len() <= PAGE_BYTES || Read(&page).count() == 1));
        }
    }
}

#[test]
fn keys_that_only_come_at_the_end_leave_full_pages() {
    let (_folder, tree) = tree();
    let mut map = Map::new();
    for number in 1..=500_u16 {
        let key = [&[2], number.to_be_bytes().as_slice()].concat();
        store(&tree, &mut map, &BTreeMap::from([(key, Some(vec![0; 90]))]));
    }
    let pages = pages(&tree);
    let bytes: usize = pages.iter().map(|(_, page)| page.len()).sum();
    assert!(bytes / pages.len() > PAGE_BYTES * 9 / 10, "{bytes} bytes in {} pages", pages.len());
}

#[test]
fn nothing_is_left_of_what_is_removed() {
    let (_folder, tree) = tree();
    let mut map = Map::new();
    let keys = || (1..=200_u8).map(|key| vec![key]);
    store(&tree, &mut map, &keys().map(|key| (key, Some(vec![7; 50]))).collect());
    assert!(pages(&tree).len() > 5);
    store(&tree, &mut map, &keys().map(|key| (key, None)).collect());
    assert_eq!(pages(&tree), []);
}

#[test]
fn a_damaged_page_is_found_and_never_read_past_its_end() {
    let pages = rewrite(b"a", &[], &[(b"ab", Some(b"one")), (b"ac", Some(b"two"))]).expect("written");
    let page = &pages[0].1;
    assert_eq!(find(page, b"ac"), Ok(Some(b"two".as_slice())));
    for length in 1..page.len() {
        let cut = &page[..length];
        assert!(find(cut, b"zz") == Err(Damaged) || length == page.len() / 2, "{length}");
    }
    assert_eq!(rewrite(b"a", &[0xff; 9], &[]), Err(Damaged));
}
