// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title What is true of payments at one block: what the chain says of them, and what happens if they are settled.
/// @notice It is never deployed. A state override puts its code at some address for the length of one `eth_call`, or
/// `LensByCreation` creates it there.
/// @dev It holds nothing and anyone may call it, so that a token, wallet or factory that calls back gains nothing.
/// What is tried is undone before anything else is tried: storage, code, and what EIP-2929 counts as warm. Every
/// settlement therefore costs what it would cost as the first call of a transaction.
contract VerificationLens {
    struct Limits {
        uint256 plainGas;
        uint256 contractGas;
        uint256 deployGas;
    }

    struct Payment {
        address asset;
        address payer;
        address payee;
        uint256 amount;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
        /// The EIP-712 digest that was signed.
        bytes32 digest;
        /// Without an ERC-6492 wrapper.
        bytes signature;
        /// The caller recovered the payer from the signature, which has 65 bytes; `v` is 27 or 28.
        bool isSignedByKey;
        /// Who deploys the payer, by ERC-6492; zero if nobody may.
        address factory;
        bytes factoryData;
    }

    struct Facts {
        /// If false, too little gas was left, and nothing else here means anything: ask again in a shorter list.
        bool isSeen;
        bool assetHasCode;
        /// Before anything ran. An account with an EIP-7702 delegation has 23 bytes.
        uint256 payerCodeSize;
        /// 0 if the asset does not answer, 1 if unused, 2 if used or cancelled.
        uint8 authorizationState;
        bool hasBalance;
        uint256 balance;
        bool wasTried;
        /// The factory's call left code at the payer.
        bool isDeployed;
        bool succeeds;
        /// Of the factory's call and of the settlement call; at most the limit.
        uint256 gasUsed;
        /// The payer has code and accepts the signature. Asked only if the settlement call failed.
        bool signatureAccepted;
        /// Of the settlement call, at most 256 bytes.
        bytes revertData;
    }

    struct Sight {
        uint256 chainId;
        uint256 blockNumber;
        uint256 blockTimestamp;
        bytes32 parentHash;
        Facts[] facts;
    }

    bytes4 private constant SETTLE_BY_KEY =
        bytes4(keccak256("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"));
    bytes4 private constant SETTLE =
        bytes4(keccak256("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"));
    bytes4 private constant AUTHORIZATION_STATE = bytes4(keccak256("authorizationState(address,bytes32)"));
    bytes4 private constant BALANCE_OF = bytes4(keccak256("balanceOf(address)"));
    /// @dev ERC-1271's question, and its answer if the signature is accepted.
    bytes4 private constant IS_VALID_SIGNATURE = bytes4(keccak256("isValidSignature(bytes32,bytes)"));

    /// @dev What a token may burn to answer one question.
    uint256 private constant READ_GAS = 60_000;
    /// @dev Two questions, and the way to them.
    uint256 private constant GLANCE_GAS = 2 * READ_GAS + 40_000;
    /// @dev Our own instructions around the calls of one payment.
    uint256 private constant REHEARSAL_GAS = 40_000;
    /// @dev Our own instructions to report one payment, memory aside.
    uint256 private constant REPORT_GAS = 3_000;
    /// @dev What one payment adds to the memory of `look`: its facts as the rehearsal tells them, as they are kept, and
    /// as they are returned.
    uint256 private constant REPORT_WORDS = 80;
    uint256 private constant REVERT_DATA_MAX = 256;
    /// @dev EIP-2929: what calling an account costs its caller when it was looked at before.
    uint256 private constant WARM_CALL_GAS = 100;

    /// @notice Looks at the payments in their order, each as if it were the only one. When the gas runs low, that
    /// payment and all behind it stay unseen.
    function look(Payment[] calldata payments, Limits calldata limits) external returns (Sight memory sight) {
        sight.chainId = block.chainid;
        sight.blockNumber = block.number;
        sight.blockTimestamp = block.timestamp;
        unchecked {
            // The genesis block has no parent, and gets zero.
            sight.parentHash = blockhash(block.number - 1);
        }
        sight.facts = new Facts[](payments.length);
        uint256 reserve = reportGas(payments.length);
        for (uint256 i = 0; i < payments.length; ++i) {
            if (gasleft() < reserve + GLANCE_GAS) break;
            try this.rehearse(payments[i], limits, reserve) {}
            catch (bytes memory told) {
                if (told.length == 0) break;
                sight.facts[i] = abi.decode(told, (Facts));
            }
        }
    }

    /// @notice Makes the calls of one payment and always reverts, which undoes them: with its facts, or with nothing if
    /// the calls cannot have all of their gas and leave `reserve`.
    /// @dev What a call returns never becomes what this reverts with, so nobody else can tell facts.
    function rehearse(Payment calldata payment, Limits calldata limits, uint256 reserve) external {
        Facts memory facts;
        try this.glance(payment.asset, payment.payer, payment.nonce) {}
        catch (bytes memory told) {
            facts = abi.decode(told, (Facts));
        }
        facts.isSeen = true;
        bool isContract = facts.payerCodeSize != 0;
        bool isToBeDeployed = !isContract && payment.factory != address(0);
        if (!facts.assetHasCode || !(isContract || isToBeDeployed || payment.isSignedByKey)) tell(facts);

        uint256 cap = isContract ? limits.contractGas : isToBeDeployed ? limits.deployGas : limits.plainGas;
        uint256 questionCap = isContract || isToBeDeployed ? limits.contractGas : 0;
        uint256 nBytes = payment.signature.length + payment.factoryData.length;
        if (!affordable(cap, questionCap, reserve + REHEARSAL_GAS + 4 * nBytes)) nothing();

        facts.wasTried = true;
        if (isToBeDeployed) {
            (, facts.gasUsed) = attempt(payment.factory, cap, payment.factoryData);
            facts.isDeployed = payment.payer.code.length != 0;
        }
        bool isByKey = !isContract && !isToBeDeployed && payment.signature.length == 65;
        bytes memory data = isByKey ? settlementByKey(payment) : settlement(payment);
        uint256 gasUsed;
        (facts.succeeds, gasUsed) = attempt(payment.asset, cap - facts.gasUsed, data);
        facts.gasUsed += gasUsed;
        if (!facts.succeeds) {
            facts.revertData = revertData();
            facts.signatureAccepted = (isContract || facts.isDeployed) && accepts(payment, limits.contractGas);
        }
        tell(facts);
    }

    /// @notice Reads what the chain says of a payment, and always reverts with it.
    /// @dev In a frame of its own, because whatever it warms up would make the settlement look cheaper than it is.
    function glance(address asset, address payer, bytes32 nonce) external view {
        Facts memory facts;
        facts.assetHasCode = asset.code.length != 0;
        facts.payerCodeSize = payer.code.length;
        (bool answered, uint256 word) = ask(asset, READ_GAS, abi.encodeWithSelector(AUTHORIZATION_STATE, payer, nonce));
        if (answered && word < 2) facts.authorizationState = uint8(word + 1);
        (answered, word) = ask(asset, READ_GAS, abi.encodeWithSelector(BALANCE_OF, payer));
        if (answered) (facts.hasBalance, facts.balance) = (true, word);
        tell(facts);
    }

    /// @dev The gas to report all payments, whatever becomes of them.
    function reportGas(uint256 nPayments) private pure returns (uint256) {
        // Calldata bounds the number.
        unchecked {
            uint256 nWords = nPayments * REPORT_WORDS + msg.data.length / 32;
            return REHEARSAL_GAS + nPayments * REPORT_GAS + 3 * nWords + nWords * nWords / 512;
        }
    }

    /// @dev Whether two calls, one after the other, would get all of their caps and leave the reserve.
    function affordable(uint256 first, uint256 second, uint256 reserve) private view returns (bool) {
        // The caps may be anything, and are only compared.
        unchecked {
            uint256 left = gasleft();
            if (left < reserve) return false;
            uint256 spare = left - reserve;
            // EIP-150: a call gets at most all but one 64th of what is left, silently less than was asked for.
            spare -= spare / 64;
            return spare >= first && spare - first >= second;
        }
    }

    /// @dev The gas is the callee's own: what making a call costs its caller is taken off.
    function attempt(address target, uint256 cap, bytes memory data) private returns (bool success, uint256 gasUsed) {
        // The EVM lets a call to nothing succeed.
        if (target.code.length == 0) return (false, 0);
        // Solidity's own call copies whatever the target returns, at our expense.
        assembly ("memory-safe") {
            let before := gas()
            success := call(cap, target, 0, add(data, 32), mload(data), 0, 0)
            gasUsed := sub(sub(before, gas()), WARM_CALL_GAS)
        }
        // A few of our own instructions were counted too.
        if (gasUsed > cap) gasUsed = cap;
    }

    /// @dev The first word of the answer, if there is one.
    function ask(address target, uint256 cap, bytes memory question) private view returns (bool answered, uint256 word) {
        assembly ("memory-safe") {
            answered := staticcall(cap, target, add(question, 32), mload(question), 0, 32)
            answered := and(answered, gt(returndatasize(), 31))
            word := mload(0)
        }
    }

    function accepts(Payment calldata payment, uint256 cap) private view returns (bool) {
        bytes memory question = abi.encodeWithSelector(IS_VALID_SIGNATURE, payment.digest, payment.signature);
        (bool answered, uint256 word) = ask(payment.payer, cap, question);
        return answered && bytes4(bytes32(word)) == IS_VALID_SIGNATURE;
    }

    function settlement(Payment calldata payment) private pure returns (bytes memory) {
        return abi.encodeWithSelector(
            SETTLE,
            payment.payer,
            payment.payee,
            payment.amount,
            payment.validAfter,
            payment.validBefore,
            payment.nonce,
            payment.signature
        );
    }

    function settlementByKey(Payment calldata payment) private pure returns (bytes memory) {
        bytes calldata signature = payment.signature;
        return abi.encodeWithSelector(
            SETTLE_BY_KEY,
            payment.payer,
            payment.payee,
            payment.amount,
            payment.validAfter,
            payment.validBefore,
            payment.nonce,
            uint8(signature[64]),
            bytes32(signature[:32]),
            bytes32(signature[32:64])
        );
    }

    /// @dev The beginning of what the last call returned.
    function revertData() private pure returns (bytes memory data) {
        assembly ("memory-safe") {
            let size := returndatasize()
            if gt(size, REVERT_DATA_MAX) { size := REVERT_DATA_MAX }
            data := mload(0x40)
            mstore(0x40, add(data, add(32, REVERT_DATA_MAX)))
            mstore(data, size)
            returndatacopy(add(data, 32), 0, size)
        }
    }

    function tell(Facts memory facts) private pure {
        bytes memory told = abi.encode(facts);
        assembly ("memory-safe") {
            revert(add(told, 32), mload(told))
        }
    }

    function nothing() private pure {
        assembly ("memory-safe") {
            revert(0, 0)
        }
    }
}
