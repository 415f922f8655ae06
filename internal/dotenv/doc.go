// Package dotenv reads .env files: variables for the processes of a project that
// do not belong into its manifest, such as secrets.
//
//	# a comment
//	export API_KEY=abc123          # export is allowed; a comment follows a blank
//	GREETING="Hello,\n\"world\""   # escapes: \n \r \t \\ \" \$
//	PATTERN='as it is: $x \n'      # nothing is special before the closing quote
//	CERTIFICATE="-----BEGIN …      # both kinds of quotes may go over several lines
//	-----END …"
//	EMPTY=
//
// A value without quotes goes to the end of the line or to a # after a blank, less
// the blanks around it. Blanks around the = do not matter. A byte order mark and
// CRLF line ends are fine; CRLF within quotes becomes LF.
//
// Nothing is put in for variables and commands: a $ or a ` is just that. ${ and $(
// are refused outside single quotes, since whoever writes them expects more. So
// is everything else that other programs read in different ways, a name that
// stands twice included. All problems of a file are found at once, each with line,
// column and fix; see [Errors]. No error ever shows a value, nor a line that has
// no name in it: that may be part of a secret.
package dotenv
