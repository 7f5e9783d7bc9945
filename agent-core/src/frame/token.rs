//! The tokens of JSON, by their first byte. Whether one may stand somewhere is the framer's to know.

/// What a byte between two tokens begins. A key that is a word is damage, but it is known only at its end which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Nothing that may stand there.
    Stray,
    /// `{` or `[`.
    Open,
    /// `}` or `]`.
    Close,
    /// Either quote.
    Quote,
    Colon,
    Comma,
    /// A number or a keyword.
    Word,
}

#[allow(clippy::as_conversions, clippy::indexing_slicing, reason = "evaluated by the compiler, or no loss")]
impl Token {
    /// What this byte begins.
    pub(super) fn of(byte: u8) -> Self {
        const TABLE: [Token; 128] = {
            let mut table = [Token::Stray; 128];
            let mut rest: &[u8] = b"-0123456789abcdefghijklmnopqrstuvwxyz";
            while let [byte, behind @ ..] = rest {
                table[*byte as usize] = Token::Word;
                rest = behind;
            }
            (table[b'{' as usize], table[b'[' as usize]) = (Token::Open, Token::Open);
            (table[b'}' as usize], table[b']' as usize]) = (Token::Close, Token::Close);
            (table[b'"' as usize], table[b'\'' as usize]) = (Token::Quote, Token::Quote);
            (table[b':' as usize], table[b',' as usize]) = (Token::Colon, Token::Comma);
            table
        };
        TABLE.get(usize::from(byte)).copied().unwrap_or(Token::Stray)
    }

    /// One of its own, but for [`Token::Stray`], which is never expected.
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8 >> 1
    }
}
