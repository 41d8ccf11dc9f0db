"""A finished run as one page of HTML that needs neither network nor manual.

In: a finished run. Out: a file with pictures, figures and plots. Read first: `contract` (what a
section of the page is), then `build` (sections → page), then one file of `sections`.

A new section is one file in `sections` with a class like `sections.failures.Failures`, its template
``assets/NAME.html.j2`` and, if it needs them, ``assets/NAME.js`` and ``assets/NAME.css``; and one
line in `sections.SECTIONS`.

Plots are SVG and canvas without a library: together with the style the page carries about 50 kB of
code where Plotly takes 4.8 MB, and scripts that neither build code from text nor set style
attributes let the page forbid both in its content security policy.
"""
