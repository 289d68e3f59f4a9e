"""The report of a run: finished artifacts in, one self-contained HTML page out.

```
artifacts ──▶ sections.py  what each section says   (plain dictionaries)
              charts.py    how a chart looks        (SVG and PNG)
              contact_sheet.py  the clip table, read in two bounded passes
          ──▶ build.py     sections into template.html.j2 ──▶ report.html
```
"""
