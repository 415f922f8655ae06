package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keelson-go/keelson/problem"
)

// adapter checks the request bodies of all operations in huma's place. huma would tell fields by dotted paths, in which
// a key with a dot cannot be told from two, and takes them apart again wrongly.
type adapter struct {
	huma.Adapter
	*settings
	schemas huma.Registry
}

// Handle registers an operation. It is called after the operation's types have been read and before any request.
func (a *adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	b := &bodyRules{adapter: a, limit: op.MaxBodyBytes}
	if b.limit == 0 || b.limit == humaMaxBodyBytes {
		b.limit = a.maxBody
	}
	op.MaxBodyBytes = -1 // huma's limit refuses a body of exactly that size
	if op.RequestBody != nil {
		b.required = op.RequestBody.Required
		for media, content := range op.RequestBody.Content {
			b.media = append(b.media, media)
			if isJSON(media) && content.Schema != nil && !op.SkipValidateBody {
				b.schema = content.Schema
			}
		}
		slices.Sort(b.media)
	}
	op.SkipValidateBody = true
	a.Adapter.Handle(op, func(ctx huma.Context) {
		handler(&requestContext{humaContext: ctx, bodyRules: b})
	})
}

// bodyRules are what an operation accepts as a body.
type bodyRules struct {
	*adapter
	limit    int64 // bytes; below 0: none
	required bool
	media    []string
	schema   *huma.Schema // of a JSON body; nil for none, or if the operation checks for itself
}

// requestContext is one request of an operation.
type requestContext struct {
	humaContext
	*bodyRules
}

// humaContext lets a huma.Context be embedded: under its own name it would hide its method Context.
type humaContext = huma.Context

// Unwrap makes humago.Unwrap work.
func (c *requestContext) Unwrap() huma.Context { return c.humaContext }

// requestOf finds the requestContext under what middleware has wrapped around it; nil if there is none.
func requestOf(ctx huma.Context) *requestContext {
	for ctx != nil {
		if rc, ok := ctx.(*requestContext); ok {
			return rc
		}
		w, ok := ctx.(interface{ Unwrap() huma.Context })
		if !ok {
			return nil
		}
		ctx = w.Unwrap()
	}
	return nil
}

// Header returns a header. The content type is returned in the form formats are found by.
func (c *requestContext) Header(name string) string {
	v := c.humaContext.Header(name)
	if strings.EqualFold(name, "Content-Type") && v != "" && !strings.HasPrefix(v, "multipart/") {
		if media, _, err := mime.ParseMediaType(v); err == nil {
			return media
		}
	}
	return v
}

// BodyReader returns the checked body. huma reads it when its turn comes, after middleware and parameters; reading is
// what checks it, and a body that is refused is a read error with the problem to answer.
func (c *requestContext) BodyReader() io.Reader { return &checkedBody{c: c} }

type checkedBody struct {
	c    *requestContext
	body *bytes.Reader
	err  error
}

func (b *checkedBody) Read(p []byte) (int, error) {
	if b.body == nil && b.err == nil {
		var body []byte
		body, b.err = b.c.readBody()
		b.body = bytes.NewReader(body)
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.body.Read(p)
}

func (c *requestContext) readBody() ([]byte, error) {
	var body []byte
	if r := c.humaContext.BodyReader(); r != nil {
		if c.limit > 0 {
			r = io.LimitReader(r, c.limit+1)
		}
		var err error
		if body, err = io.ReadAll(r); err != nil {
			return nil, readError(err)
		}
	}
	if c.limit > 0 && int64(len(body)) > c.limit {
		return nil, problem.From(&http.MaxBytesError{Limit: c.limit})
	}
	if len(body) == 0 {
		if c.required {
			return nil, problem.New(http.StatusBadRequest, problem.CodeMalformed, "The request needs a body.")
		}
		return nil, nil
	}
	media := c.Header("Content-Type")
	if !c.accepts(media) {
		return nil, problem.New(http.StatusUnsupportedMediaType, problem.CodeUnsupportedMediaType,
			"Send the body with the Content-Type "+strings.Join(c.media, " or ")+".")
	}
	if c.schema == nil || !isJSON(media) {
		return body, nil
	}
	return body, c.check(body)
}

// readError tells a client that sends too slowly, which huma answers with 408, from one that breaks off.
func readError(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return err
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return problem.New(http.StatusBadRequest, problem.CodeMalformed, "The request body could not be read to its end.")
}

// accepts reports whether the operation takes the media type. One without a type is refused: a web page of any origin
// can send such a request without asking.
func (c *requestContext) accepts(media string) bool {
	return slices.Contains(c.media, media) || slices.Contains(c.media, "application/octet-stream")
}

func isJSON(media string) bool {
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// check parses the body and holds it against the schema.
func (c *requestContext) check(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("text after the JSON value")
		}
	}
	if err != nil {
		detail := "The request body is not JSON."
		if se, ok := errors.AsType[*json.SyntaxError](err); ok { // its text would quote the body
			detail = fmt.Sprintf("The request body is not JSON: there is an error at byte %d.", se.Offset)
		}
		return problem.New(http.StatusBadRequest, problem.CodeMalformed, detail)
	}
	ch := &checker{schemas: c.schemas, path: huma.NewPathBuffer(nil, 0)}
	again := json.NewDecoder(bytes.NewReader(body))
	again.UseNumber()
	ch.unique(again, nil)
	ch.check(c.schema, v, nil)
	if len(ch.errs) > 0 {
		return Invalid(ch.errs...)
	}
	return nil
}
