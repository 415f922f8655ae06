package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// cell is a table's cell: text, and the colour it is painted in.
type cell struct{ text, sgr string }

// table is rows of cells, the first one the header. Unlike text/tabwriter it
// does not count colours as text.
type table struct {
	indent string
	rows   [][]cell
}

func newTable(indent string, header ...string) *table {
	t := &table{indent: indent}
	t.row()
	for _, h := range header {
		t.add(h, bold)
	}
	return t
}

// row begins a row with plain cells.
func (t *table) row(texts ...string) {
	t.rows = append(t.rows, nil)
	for _, text := range texts {
		t.add(text, "")
	}
}

// add adds a cell to the last row. What it holds may come from outside.
func (t *table) add(text, sgr string) {
	last := len(t.rows) - 1
	t.rows[last] = append(t.rows[last], cell{clean(text), sgr})
}

func (t *table) write(w io.Writer, s style) error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		b.WriteString(t.indent)
		for i, c := range row {
			b.WriteString(s.paint(c.sgr, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+3))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
