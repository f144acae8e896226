"""The tables of the SQLite store."""

from __future__ import annotations

FORMAT_VERSION = 2

FIRST = """
create table identity (format integer not null, cluster text not null, replica integer not null, store text not null);
create table view (id integer primary key check (id = 1), view integer not null, active integer not null,
                   view_change blob, new_view blob);
create table stable (id integer primary key check (id = 1), seq integer not null, previous integer not null,
                     certificate blob not null);
create table accepted (seq integer not null, view integer not null, pre_prepare blob not null, batch blob not null,
                       primary key (seq, view));
create table prepared (seq integer primary key, view integer not null, certificate blob not null);
create table snapshots (seq integer primary key, digest blob not null, manifest blob not null, vote blob);
create table epochs (epoch integer primary key, link blob not null);
create table pages (digest blob primary key, bytes blob not null, fetched integer);
create index fetched on pages (fetched) where fetched is not null;
"""
LATER = """
create table if not exists life (id integer primary key check (id = 1), generation integer not null,
                                 refused text not null);
insert or ignore into life values (1, 0, '');
create table if not exists void (seq integer primary key);
create table if not exists doubted (id integer primary key check (id = 1), executed integer not null);
"""
"""Not in the first schema: stores made before have none of these until they are opened."""
