//! The rows of lists. Changes are audited here; whoever makes one keeps claims away meanwhile.

use alloy::primitives::Address;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::{
    audit::{self, Actor, Change},
    db::{self, DbError, During},
    domain::{ChainId, MerchantId},
};

use super::{Denial, Denier, Entry, Filter, Kind, NewEntry, Owner, Parties, Verb};

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// How many entries were written or taken out. Those that were there, or were not, are not counted.
    pub n_entries: u64,
    /// The version of the lists of that owner.
    pub version: u64,
}

/// There is no room for that many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lists would have {n_entries} entries together; {n_entries_max} are the most")]
pub struct ListFull {
    n_entries: i64,
    n_entries_max: u32,
}

/// Writes entries into the lists of an owner. What is written already stays as it is.
///
/// # Errors
/// Within the result, when there is no room; then nothing of the database transaction may be committed.
#[allow(clippy::as_conversions, reason = "in this way `query!` is told what an argument may be")]
pub async fn add(
    conn: &mut PgConnection,
    actor: &Actor,
    owner: Owner,
    entries: &[NewEntry],
) -> Result<Result<Changed, ListFull>, DbError> {
    let columns = Columns::of(entries);
    let added = sqlx::query!(
        "
        insert into list_entry (merchant_id, kind, verb, chain_id, address, note)
        select $1, kind, verb, nullif(chain_id, ''), address, note
        from unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[])
            as asked (kind, verb, chain_id, address, note)
        on conflict do nothing
        returning kind, verb, chain_id, address, note
        ",
        owner.merchant_id().map(MerchantId::as_uuid),
        &columns.kinds,
        &columns.verbs,
        &columns.chain_ids,
        &columns.addresses,
        &columns.notes,
    )
    .fetch_all(&mut *conn)
    .await
    .during("write into a list")?;
    let added: Vec<NewEntry> = added
        .iter()
        .map(|row| line(&row.kind, &row.verb, row.chain_id.as_deref(), &row.address, &row.note))
        .collect::<Result<_, _>>()?;
    let n_added = i64::try_from(added.len()).unwrap_or(i64::MAX);
    let (version, n_entries) = raise_version(conn, owner, n_added).await?;
    if n_entries > i64::from(owner.n_entries_max()) {
        return Ok(Err(ListFull { n_entries, n_entries_max: owner.n_entries_max() }));
    }
    if !added.is_empty() {
        let subject = subject(owner);
        let change =
            Change { after: Some(told(version, &added)), ..change("list.add", &subject, owner) };
        audit::record(conn, actor, &change).await?;
    }
    Ok(Ok(Changed { n_entries: n_added.unsigned_abs(), version }))
}

/// The entry of that id, and whose list it is in.
pub async fn find(
    conn: &mut PgConnection,
    entry_id: i64,
) -> Result<Option<(Owner, NewEntry)>, DbError> {
    let row = sqlx::query!(
        "
        select merchant_id, kind, verb, chain_id, address, note from list_entry where entry_id = $1
        ",
        entry_id,
    )
    .fetch_optional(conn)
    .await
    .during("find a list's entry")?;
    let Some(row) = row else { return Ok(None) };
    let entry = line(&row.kind, &row.verb, row.chain_id.as_deref(), &row.address, &row.note)?;
    Ok(Some((row.merchant_id.map(MerchantId::from_uuid).into(), entry)))
}

/// Takes entries out of the lists of an owner, whatever their notes.
#[allow(clippy::as_conversions, reason = "in this way `query!` is told what an argument may be")]
pub async fn remove(
    conn: &mut PgConnection,
    actor: &Actor,
    owner: Owner,
    entries: &[NewEntry],
) -> Result<Changed, DbError> {
    let columns = Columns::of(entries);
    let removed = sqlx::query!(
        "
        delete from list_entry
        using unnest($2::text[], $3::text[], $4::text[], $5::bytea[])
            as asked (kind, verb, chain_id, address)
        where list_entry.address = asked.address and list_entry.kind = asked.kind
            and list_entry.verb = asked.verb
            and list_entry.merchant_id is not distinct from $1
            and list_entry.chain_id is not distinct from nullif(asked.chain_id, '')
        returning list_entry.kind, list_entry.verb, list_entry.chain_id, list_entry.address,
            list_entry.note
        ",
        owner.merchant_id().map(MerchantId::as_uuid),
        &columns.kinds,
        &columns.verbs,
        &columns.chain_ids,
        &columns.addresses,
    )
    .fetch_all(&mut *conn)
    .await
    .during("take out of a list")?;
    let removed: Vec<NewEntry> = removed
        .iter()
        .map(|row| line(&row.kind, &row.verb, row.chain_id.as_deref(), &row.address, &row.note))
        .collect::<Result<_, _>>()?;
    let n_removed = i64::try_from(removed.len()).unwrap_or(i64::MAX);
    let (version, _) = raise_version(conn, owner, n_removed.saturating_neg()).await?;
    if !removed.is_empty() {
        let subject = subject(owner);
        let before = Some(told(version.saturating_sub(1), &removed));
        let change = Change { before, ..change("list.remove", &subject, owner) };
        audit::record(conn, actor, &change).await?;
    }
    Ok(Changed { n_entries: n_removed.unsigned_abs(), version })
}

/// The version and the length of the lists of an owner after a change by so many entries. A change of
/// nothing is none.
async fn raise_version(
    conn: &mut PgConnection,
    owner: Owner,
    n_more: i64,
) -> Result<(u64, i64), DbError> {
    let row = sqlx::query!(
        r#"
        insert into list_version as kept (merchant_id, version, n_entries) values ($1, 1, greatest($2, 0))
        on conflict on constraint list_version_key do update
            set version = kept.version + ($2 <> 0)::int, n_entries = kept.n_entries + $2
        returning version, n_entries::bigint as "n_entries!"
        "#,
        owner.merchant_id().map(MerchantId::as_uuid),
        i32::try_from(n_more).unwrap_or(i32::MAX),
    )
    .fetch_one(conn)
    .await
    .during("raise a list's version")?;
    Ok((db::number(row.version)?, row.n_entries))
}

/// The first party whom the lists deny, exactly as they stand: in the claim's database transaction, which
/// holds the rules.
pub async fn denies(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    parties: &Parties,
) -> Result<Option<Denial>, DbError> {
    let (kinds, addresses): (Vec<String>, Vec<Vec<u8>>) =
        parties.named().map(|(kind, address)| (kind.as_str().to_owned(), address.to_vec())).unzip();
    let row = sqlx::query!(
        r#"
        with party as (
            select * from unnest($3::text[], $4::bytea[])
                with ordinality as party (kind, address, position)),
        named as (
            select entry.merchant_id is not null as is_merchants, entry.verb, party.position
            from party join list_entry entry using (address, kind)
            where (entry.merchant_id is null or entry.merchant_id = $1)
                and (entry.chain_id is null or entry.chain_id = $2)),
        closed as (
            select false as is_merchants, party.position from party
            where exists (select from list_entry where verb = 'allow' and merchant_id is null
                and kind = party.kind and (chain_id is null or chain_id = $2))
            union all
            select true, party.position from party
            where exists (select from list_entry where verb = 'allow' and merchant_id = $1
                and kind = party.kind and (chain_id is null or chain_id = $2))),
        found as (
            select is_merchants, position, 'deny' as verb from named where verb = 'deny'
            union all
            select is_merchants, position, 'allow' from closed
            where (is_merchants, position) not in
                (select is_merchants, position from named where verb = 'allow'))
        select is_merchants as "is_merchants!", kind as "kind!", address as "address!",
            verb as "verb!",
            case when is_merchants
                then (select version from list_version where merchant_id = $1)
                else (select version from list_version where merchant_id is null)
            end as "version!"
        from found join party using (position)
        order by is_merchants, position, verb desc
        limit 1
        "#,
        merchant_id.as_uuid(),
        parties.chain_id.to_string(),
        &kinds,
        &addresses,
    )
    .fetch_optional(conn)
    .await
    .during("hold a payment against the lists")?;
    let Some(row) = row else { return Ok(None) };
    let owner = if row.is_merchants { Owner::Merchant(merchant_id) } else { Owner::Service };
    let (kind, verb) = (read_kind(&row.kind)?, read_verb(&row.verb)?);
    let denier = Denier::List { owner, kind, verb };
    let (address, version) = (db::address(&row.address)?, row.version.to_string());
    Ok(Some(Denial { kind, address, denier, version }))
}

/// Entries in the order of writing.
pub async fn entries(conn: &mut PgConnection, filter: &Filter) -> Result<Vec<Entry>, DbError> {
    let rows = sqlx::query!(
        r#"
        select entry_id as "entry_id!", kind as "kind!", verb as "verb!", chain_id, address as "address!",
            note as "note!", rfc3339(created_at) as "created_at!"
        from (
            select * from list_entry where merchant_id = $2
            union all
            select * from list_entry where $2::uuid is null and merchant_id is null) as of_scope
        where entry_id > $1
            and ($3::text is null or kind = $3)
            and ($4::text is null or verb = $4)
            and ($5::bytea is null or address = $5)
        order by entry_id
        limit $6
        "#,
        filter.after,
        filter.owner.merchant_id().map(MerchantId::as_uuid),
        filter.kind.map(Kind::as_str),
        filter.verb.map(Verb::as_str),
        filter.address.map(|address| address.to_vec()),
        i64::from(filter.limit),
    )
    .fetch_all(conn)
    .await
    .during("read lists")?;
    let entries = rows.into_iter().map(|row| {
        Ok(Entry {
            entry_id: row.entry_id,
            owner: filter.owner,
            line: line(&row.kind, &row.verb, row.chain_id.as_deref(), &row.address, &row.note)?,
            created_at: row.created_at,
        })
    });
    entries.collect()
}

/// The versions of the lists that a merchant's payments are held against; 0 before the first change.
pub(super) struct Versions {
    pub(super) service: u64,
    pub(super) merchant: u64,
}

/// Reads them. What is read of the lists afterwards is not older.
pub(super) async fn versions(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
) -> Result<Versions, DbError> {
    let row = sqlx::query!(
        r#"
        select
            coalesce((select version from list_version where merchant_id is null), 0) as "service!",
            coalesce((select version from list_version where merchant_id = $1), 0) as "merchant!"
        "#,
        merchant_id.as_uuid(),
    )
    .fetch_one(conn)
    .await
    .during("look whether lists changed")?;
    Ok(Versions { service: db::number(row.service)?, merchant: db::number(row.merchant)? })
}

/// Everything in the lists of an owner.
pub(super) async fn whole(conn: &mut PgConnection, owner: Owner) -> Result<Vec<NewEntry>, DbError> {
    let rows = sqlx::query!(
        r#"
        select kind as "kind!", verb as "verb!", chain_id, address as "address!"
        from list_entry where merchant_id = $1
        union all
        select kind, verb, chain_id, address
        from list_entry where $1::uuid is null and merchant_id is null
        "#,
        owner.merchant_id().map(MerchantId::as_uuid),
    )
    .fetch_all(conn)
    .await
    .during("read a list")?;
    let lines = rows
        .iter()
        .map(|row| line(&row.kind, &row.verb, row.chain_id.as_deref(), &row.address, ""));
    lines.collect()
}

/// Entries, a column each.
struct Columns {
    kinds: Vec<String>,
    verbs: Vec<String>,
    /// Empty: on any chain.
    chain_ids: Vec<String>,
    addresses: Vec<Vec<u8>>,
    notes: Vec<String>,
}

impl Columns {
    fn of(entries: &[NewEntry]) -> Self {
        let chain = |entry: &NewEntry| {
            entry.chain_id().map(|chain_id| chain_id.to_string()).unwrap_or_default()
        };
        Self {
            kinds: entries.iter().map(|entry| entry.kind().as_str().to_owned()).collect(),
            verbs: entries.iter().map(|entry| entry.verb().as_str().to_owned()).collect(),
            chain_ids: entries.iter().map(chain).collect(),
            addresses: entries.iter().map(|entry| entry.address().to_vec()).collect(),
            notes: entries.iter().map(|entry| entry.note().to_owned()).collect(),
        }
    }
}

fn change<'a>(action: &'a str, subject: &'a str, owner: Owner) -> Change<'a> {
    Change { action, subject, merchant_id: owner.merchant_id(), before: None, after: None }
}

/// What the audit calls the lists of an owner.
fn subject(owner: Owner) -> String {
    match owner {
        Owner::Service => owner.as_str().to_owned(),
        Owner::Merchant(merchant_id) => merchant_id.to_string(),
    }
}

/// What the record of a change says of the entries.
fn told(version: u64, entries: &[NewEntry]) -> Value {
    let entries = entries.iter().map(NewEntry::shown);
    json!({ "version": version, "entries": entries.collect::<Vec<_>>() })
}

fn line(
    kind: &str,
    verb: &str,
    chain_id: Option<&str>,
    address: &[u8],
    note: &str,
) -> Result<NewEntry, DbError> {
    let (kind, verb): (Kind, Verb) = (read_kind(kind)?, read_verb(verb)?);
    let chain_id: Option<ChainId> = chain_id.map(db::chain_id).transpose()?;
    let address: Address = db::address(address)?;
    NewEntry::new(kind, verb, chain_id, address, note)
        .map_err(|error| unreadable(error.to_string()))
}

fn read_kind(text: &str) -> Result<Kind, DbError> {
    Kind::parse(text).ok_or_else(|| unreadable(format!("kind {text:?}")))
}

fn read_verb(text: &str) -> Result<Verb, DbError> {
    Verb::parse(text).ok_or_else(|| unreadable(format!("verb {text:?}")))
}

fn unreadable(what: String) -> DbError {
    DbError { operation: "read a list", source: sqlx::Error::Decode(what.into()) }
}
