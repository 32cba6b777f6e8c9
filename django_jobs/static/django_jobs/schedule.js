/* The form of a schedule: shows the words and the next runs of what is typed, as the server finds them, before it is saved. */
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    const preview = document.getElementById("schedule-preview");
    const words = document.querySelector(".field-words_now .readonly");
    const runs = document.querySelector(".field-upcoming .readonly");
    if (!preview || !words || !runs) {
        return;
    }
    const form = preview.closest("form");
    const times = /^(cron|timezone|(run|start|end)_at(_[01])?)$/;
    let shown = typed();
    let waiting;
    runs.setAttribute("aria-live", "polite");
    // The calendar and the clock beside a field change it without an event, and give it the focus.
    for (const event of ["input", "change", "focusin"]) {
        form.addEventListener(event, () => {
            clearTimeout(waiting);
            waiting = setTimeout(show, 300);
        });
    }

    function typed() {
        const fields = new URLSearchParams({id: preview.dataset.id});
        for (const [name, value] of new FormData(form)) {
            if (times.test(name)) {
                fields.append(name, value);
            }
        }
        return fields.toString();
    }

    async function show() {
        const asked = typed();
        if (asked === shown) {
            return;
        }
        shown = asked;
        const response = await fetch(`${preview.dataset.url}?${asked}`);
        // What was typed meanwhile is asked for by itself.
        if (response.ok && asked === shown) {
            const found = await response.json();
            words.innerHTML = found.words;
            runs.innerHTML = found.problem || found.runs;
        }
    }
});
