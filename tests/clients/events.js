// An EventSource that prints every event, its name and its data: events.js URL

import { EventSource } from "eventsource";

const NAMED = ["subscribed", "caught_up", "position", "gap", "outage", "restored", "goodbye"];

function show({ type, data }) {
  console.log(type, data);
}

const source = new EventSource(process.argv[2]);
source.onmessage = show;
for (const name of NAMED) source.addEventListener(name, show);
