#include "proto/json_parse.h"

#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <rapidjson/reader.h>
#pragma GCC diagnostic pop

namespace
{

/* Text with a size; RapidJSON's own needs a NUL behind it. */
struct Text {
    using Ch = char;
    const char *begin, *at, *end;

    Ch Peek() const
    {
        return at < end ? *at : '\0';
    }
    Ch Take()
    {
        return at < end ? *at++ : '\0';
    }
    size_t Tell() const
    {
        return static_cast<size_t>(at - begin);
    }
    /* Only for streams that are written. */
    Ch *PutBegin()
    {
        return nullptr;
    }
    void Put(Ch)
    {
    }
    void Flush()
    {
    }
    size_t PutEnd(Ch *)
    {
        return 0;
    }
};

using Reader = rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>>;

struct Handler {
    const json_events_t &to;
    void *ctx;
    const Text &text;
    using Size = rapidjson::SizeType;

    bool Null()
    {
        return to.nil(ctx);
    }
    bool Bool(bool value)
    {
        return to.boolean(ctx, value);
    }
    bool RawNumber(const char *digits, Size, bool)
    {
        return to.number(ctx, digits, text.Tell());
    }
    /* Not asked for: how 1.1.0 makes a double of hostile digits reads beyond a table of its own. */
    bool Int(int)
    {
        return false;
    }
    bool Uint(unsigned)
    {
        return false;
    }
    bool Int64(int64_t)
    {
        return false;
    }
    bool Uint64(uint64_t)
    {
        return false;
    }
    bool Double(double)
    {
        return false;
    }
    bool String(const char *value, Size size, bool)
    {
        return to.string(ctx, value, size, text.Tell());
    }
    bool Key(const char *value, Size size, bool)
    {
        return to.key(ctx, value, size, text.Tell());
    }
    bool StartObject()
    {
        return to.begin(ctx, true, text.Tell());
    }
    bool EndObject(Size count)
    {
        return to.end(ctx, true, count);
    }
    bool StartArray()
    {
        return to.begin(ctx, false, text.Tell());
    }
    bool EndArray(Size count)
    {
        return to.end(ctx, false, count);
    }
};

const char *sentence(rapidjson::ParseErrorCode code)
{
    switch (code) {
    case rapidjson::kParseErrorNone:
        return nullptr;
    case rapidjson::kParseErrorTermination:
        return "";
    case rapidjson::kParseErrorDocumentEmpty:
        return "there is no JSON, only the end of the text";
    case rapidjson::kParseErrorDocumentRootNotSingular:
        return "the JSON is complete, and something follows";
    case rapidjson::kParseErrorObjectMissName:
        return "a key in double quotes, or '}', is expected here";
    case rapidjson::kParseErrorObjectMissColon:
        return "a ':' is expected behind the key";
    case rapidjson::kParseErrorObjectMissCommaOrCurlyBracket:
        return "a ',' or '}' is expected here";
    case rapidjson::kParseErrorArrayMissCommaOrSquareBracket:
        return "a ',' or ']' is expected here";
    case rapidjson::kParseErrorStringUnicodeEscapeInvalidHex:
        return "\\u takes four hexadecimal digits";
    case rapidjson::kParseErrorStringUnicodeSurrogateInvalid:
        return "this \\u is half of a pair, and the other half is missing";
    case rapidjson::kParseErrorStringEscapeInvalid:
        return "a text holds a control character (write \\n, \\t, \\u00..), or a '\\' that begins "
               "no escape";
    case rapidjson::kParseErrorStringMissQuotationMark:
        return "a text does not end: its closing '\"' is missing";
    case rapidjson::kParseErrorStringInvalidEncoding:
        return "this is not valid UTF-8";
    case rapidjson::kParseErrorNumberTooBig:
        return "this number is too large";
    case rapidjson::kParseErrorNumberMissFraction:
        return "digits are missing behind the '.'";
    case rapidjson::kParseErrorNumberMissExponent:
        return "digits are missing in the exponent";
    case rapidjson::kParseErrorValueInvalid:
    case rapidjson::kParseErrorUnspecificSyntaxError:
        break;
    }
    return "a value is expected here";
}

template <unsigned flags> rapidjson::ParseResult parse(Text &stream, Handler &handler)
{
    rapidjson::CrtAllocator memory;
    Reader reader(&memory);
    return reader.Parse<flags>(stream, handler);
}

} // namespace

/* Where encoding need not be looked at RapidJSON lets a stream copy what is before the next
 * character that means something; byte by byte it needs four times as long. */
namespace rapidjson
{
template <>
template <>
inline void Reader::ScanCopyUnescapedString(Text &from, Reader::StackStream<char> &to)
{
    const char *at = from.at;
    while (at < from.end && *at != '"' && *at != '\\' && static_cast<unsigned char>(*at) >= 0x20)
        at++;
    size_t size = static_cast<size_t>(at - from.at);
    if (size)
        memcpy(to.Push(static_cast<SizeType>(size)), from.at, size);
    from.at = at;
}
} // namespace rapidjson

json_fault_t json_parse(const char *text, size_t size, bool utf8, const json_events_t *events,
                        void *ctx)
{
    constexpr unsigned plain = rapidjson::kParseNumbersAsStringsFlag;
    Text stream{text, text, text + size};
    Handler handler{*events, ctx, stream};
    rapidjson::ParseResult result =
        utf8 ? parse<plain>(stream, handler)
             : parse<plain | rapidjson::kParseValidateEncodingFlag>(stream, handler);
    return {sentence(result.Code()), result.Offset()};
}
