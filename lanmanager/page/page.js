// The page is whole without this script. It follows the changes, fetches the view
// of the present URL anew, and carries the differences into the document, so
// that focus, selection and scroll position stay.
"use strict";

const silence = 25_000; // ms without a word from the server (it says one each 10 s): the connection is lost
const again = 2_000; // ms until the next attempt

const root = document.documentElement;
const byId = (id) => document.getElementById(id);
root.classList.add("script");

// The view: fetch, and carry over.

let loading = null; // the AbortController of the fetch under way
let stale = false; // a change came meanwhile

// load shows the view of the present URL, and tells whether it could. What the
// user wants ends a fetch under way; a change waits for it.
async function load(byUser = false) {
	if (loading && !byUser) {
		stale = true;
		return true;
	}
	loading?.abort();
	const mine = (loading = new AbortController());
	const limit = setTimeout(() => mine.abort(), 10_000);
	try {
		const response = await fetch(location.href, { signal: mine.signal, cache: "no-store" });
		const text = await response.text();
		if (!response.ok) return false;
		if (loading === mine) show(new DOMParser().parseFromString(text, "text/html"));
		return true;
	} catch {
		return loading !== mine; // given up for another is no failure
	} finally {
		clearTimeout(limit);
		if (loading === mine) {
			loading = null;
			if (stale) {
				stale = false;
				load();
			}
		}
	}
}

function show(next) {
	const focused = document.activeElement;
	document.title = next.title;
	Object.assign(root.dataset, next.documentElement.dataset);
	carry(document.body, next.body);
	const filter = byId("filter");
	if (focused === filter) return tick();
	filter.value = filter.getAttribute("value");
	if (focused !== document.activeElement) (focused.isConnected ? focused : byId("table")).focus({ preventScroll: true });
	tick();
}

const key = (node) => node.dataset?.key;

// carry makes the children of an element those of another one. Elements with a
// data-key are the same wherever they are; others if they are in the same place.
function carry(into, from) {
	const wanted = new Set(Array.from(from.children, key));
	const kept = new Map();
	for (const child of Array.from(into.children)) {
		if (key(child) === undefined) continue;
		if (wanted.has(key(child)) && !kept.has(key(child))) kept.set(key(child), child);
		else child.remove();
	}
	let place = into.firstChild;
	for (const node of Array.from(from.childNodes)) {
		let old = kept.get(key(node));
		kept.delete(key(node));
		if (key(node) === undefined && place && key(place) === undefined) old = place;
		while (old && place && old !== place && key(place) === undefined) place = drop(place);
		if (old?.nodeName !== node.nodeName) {
			into.insertBefore(document.adoptNode(node), place);
			continue;
		}
		if (old === place) place = place.nextSibling;
		else into.insertBefore(old, place);
		if (node.nodeType === Node.TEXT_NODE) {
			if (old.data !== node.data) old.data = node.data;
		} else if (old.dataset.keep === undefined) {
			for (const name of old.getAttributeNames()) if (!node.hasAttribute(name)) old.removeAttribute(name);
			for (const name of node.getAttributeNames()) if (old.getAttribute(name) !== node.getAttribute(name)) old.setAttribute(name, node.getAttribute(name));
			carry(old, node);
		}
	}
	while (place) place = drop(place);
}

function drop(node) {
	const next = node.nextSibling;
	node.remove();
	return next;
}

// tick writes how long ago the times were, by the server's clock and in its words.
let ahead = 0; // ms of the server's clock before ours
let renderedAt = "";
function tick() {
	if (renderedAt !== root.dataset.now) {
		renderedAt = root.dataset.now;
		ahead = Number(renderedAt) - Date.now();
	}
	for (const time of document.querySelectorAll("time")) {
		const text = age((Date.now() + ahead - Date.parse(time.dateTime)) / 1000);
		if (time.textContent !== text) time.textContent = text;
	}
}

function age(seconds) {
	if (seconds < 1) return "now";
	if (seconds < 60) return `${Math.floor(seconds)} s`;
	if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
	if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
	return `${Math.floor(seconds / 86400)} d`;
}

// What the user does: links and the filter change the URL, and the view follows.

async function go(url, how = "pushState") {
	history[how](null, "", url);
	if (!(await load(true))) return;
	reveal();
	if (byId("table").getBoundingClientRect().top < 0) byId("table").scrollIntoView();
	say(document.querySelector(".rows").textContent || document.querySelector(".none").textContent);
}

// reveal scrolls the tabs, where there is no room for all, to the current one.
function reveal() {
	const tab = document.querySelector(".tabs [aria-current]").parentElement;
	tab.parentElement.scrollLeft = tab.offsetLeft - 60;
}

document.addEventListener("click", (event) => {
	const link = event.target.closest("a");
	if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
	if (link.origin !== location.origin || link.pathname !== "/" || link.hash) return;
	event.preventDefault();
	go(link.href);
});

let typing = 0;
function filter(event) {
	const form = event.target.closest("form");
	const values = Array.from(new FormData(form)).filter(([, value]) => value.trim());
	const query = String(new URLSearchParams(values));
	event.preventDefault();
	clearTimeout(typing);
	typing = setTimeout(() => go(query ? `/?${query}` : "/", "replaceState"), event.type === "submit" ? 0 : 120);
}
document.addEventListener("input", filter);
document.addEventListener("submit", filter);
window.addEventListener("popstate", () => load(true));

// The connection: follow the changes, say when that is not possible, try again.

let changes = null;
let watch = 0; // timer: for a word of the server, or until the next attempt
let lostSince = null;

function follow() {
	leave();
	if (document.hidden) return;
	changes = new EventSource("/api/changes");
	changes.onmessage = (event) => {
		heard();
		if (event.data !== root.dataset.revision) load();
	};
	changes.onerror = () => lose(new Date());
	watch = setTimeout(lose, silence, new Date());
}

function leave() {
	changes?.close();
	changes = null;
	clearTimeout(watch);
}

function heard() {
	clearTimeout(watch);
	watch = setTimeout(lose, silence, new Date());
	if (lostSince) say("The connection to the LAN manager is back.");
	lostSince = null;
	status("Live", "live");
}

// lose is for when the changes can not be followed any more. If the view can be
// loaded all the same, loading it again and again has to do.
async function lose(since) {
	leave();
	watch = setTimeout(follow, again);
	if (await load()) {
		if (!changes) status("Loaded again every few seconds", "");
		return;
	}
	if (!lostSince) say("The connection to the LAN manager is lost.");
	lostSince ??= since;
	status(`No connection to the LAN manager since ${lostSince.toTimeString().slice(0, 8)}; trying again`, "lost");
}

function status(text, tone) {
	const link = byId("link");
	if (link.textContent === text) return;
	link.textContent = text;
	link.className = tone;
}

document.addEventListener("visibilitychange", follow);

// What is said to those who can not see the page: the rows after a move, and the
// summary when it changes, but not so often that it disturbs.

const say = (text) => (byId("said").textContent = text);

let summary = "";
function sayNews() {
	const now = document.querySelector(".summary").textContent;
	if (summary && now !== summary) say(now);
	summary = now;
}

tick();
reveal();
sayNews();
follow();
setInterval(tick, 1_000);
setInterval(sayNews, 5_000);
